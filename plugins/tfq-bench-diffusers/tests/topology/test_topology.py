"""Topologies of the published networks on the meta device, and of networks never named in code."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DiTTransformer2DModel,
    PixArtTransformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import nn

from tfq_bench import api
from tfq_bench_diffusers.topology import diffusers_topology

DDPM = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": None,
}
LDM4 = {
    "sample_size": 64,
    "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D", *("AttnDownBlock2D",) * 3),
    "up_block_types": (*("AttnUpBlock2D",) * 3, "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": 32,
}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TRANSFORMER = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "sample_size": 32,
    "patch_size": 2,
}
TIME = torch.zeros(1)


def text(tokens: int, width: int) -> torch.Tensor:
    """An embedded prompt."""
    return torch.zeros(1, tokens, width)


def on_meta(kind, **config) -> nn.Module:
    """A network without values."""
    with torch.device("meta"):
        return kind(**config)


def published(name: str) -> tuple[nn.Module, dict]:
    """A network of the papers and its inputs."""
    if name in ("ddpm-cifar10", "ldm-4"):
        network = on_meta(UNet2DModel, **(DDPM if name == "ddpm-cifar10" else LDM4))
        size = network.config.sample_size
        return network, {"sample": torch.zeros(1, 3, size, size), "timestep": TIME}
    if name in ("sd-v1", "sd-v2"):
        width = 768 if name == "sd-v1" else 1024
        more = {"use_linear_projection": True, "attention_head_dim": (5, 10, 20, 20)}
        network = on_meta(
            UNet2DConditionModel, cross_attention_dim=width, **(more if width == 1024 else {})
        )
        sample = torch.zeros(1, 4, 64, 64)
        return network, {
            "sample": sample,
            "timestep": TIME,
            "encoder_hidden_states": text(77, width),
        }
    if name == "sdxl":
        added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
        return on_meta(UNet2DConditionModel, **SDXL), {
            "sample": torch.zeros(1, 4, 128, 128),
            "timestep": TIME,
            "encoder_hidden_states": text(77, 2048),
            "added_cond_kwargs": added,
        }
    state = {"hidden_states": torch.zeros(1, 4, 32, 32), "timestep": TIME}
    if name == "dit":
        network = on_meta(DiTTransformer2DModel, **TRANSFORMER, num_embeds_ada_norm=1000)
        return network, {**state, "class_labels": torch.zeros(1, dtype=torch.int64)}
    assert name == "pixart"
    network = on_meta(
        PixArtTransformer2DModel, **TRANSFORMER, cross_attention_dim=1152, caption_channels=4096
    )
    added = {"resolution": None, "aspect_ratio": None}
    return network, {
        **state,
        "encoder_hidden_states": text(120, 4096),
        "added_cond_kwargs": added,
    }


@pytest.mark.parametrize(
    ("name", "mlp", "projections", "channels", "features"),
    [
        ("ddpm-cifar10", 2, 22, 4_992, 22),
        ("ldm-4", 2, 22, 12_992, 22),
        ("sd-v1", 2, 22, 20_160, 22),
        ("sd-v2", 2, 22, 20_160, 22),
        ("sdxl", 2, 17, 13_760, 1),
        # One modulation a block, and that of the final layer.
        ("dit", 56, 29, 28 * 6 * 1152 + 2 * 1152, 28),
        # The final layer reads the time MLP itself, so that is a feature too.
        ("pixart", 2, 1, 6_912, 2),
    ],
)
def test_temporal_block_of_the_published_networks(name, mlp, projections, channels, features):
    """Counts of projections and channels are those of the papers' networks."""
    topology = diffusers_topology(*published(name))
    width = sum(topology.layer(one).weight_shape[0] for one in topology.time_projections)
    found = (len(topology.time_mlp), len(topology.time_projections), width)
    assert (mlp, projections, channels) == found
    assert features == len(topology.time_features)
    same = topology.time_features == topology.time_projections
    assert same == (name not in ("sdxl", "dit", "pixart"))


def test_what_depends_on_the_timestep_alone_in_sdxl():
    """Text and sizes are added to the time embedding before the projections read it."""
    topology = diffusers_topology(*published("sdxl"))
    assert ("time_embedding.linear_2",) == topology.time_features
    conditional = [layer.name for layer in topology.layers if layer.role == "condition"]
    assert ["add_embedding.linear_1", "add_embedding.linear_2"] == conditional


@pytest.mark.parametrize("name", ["ddpm-cifar10", "sd-v1", "sdxl", "dit", "pixart"])
def test_every_role_is_found(name):
    """One input, one output, and nothing that is not understood."""
    roles = [layer.role for layer in diffusers_topology(*published(name)).layers]
    assert 1 == roles.count("input")
    assert 1 == roles.count("output")
    assert "other" not in roles


def test_middle_runs_before_the_way_up():
    """Diffusers registers `up_blocks` first."""
    names = [block.name for block in diffusers_topology(*published("sd-v1")).blocks]
    order = [name.split(".")[0] for name in names]
    assert order.index("mid_block") < order.index("up_blocks")
    assert order.index("down_blocks") < order.index("mid_block")


def test_blocks_are_residual_and_transformer_blocks():
    """A projection into a stack of transformer blocks stands alone."""
    names = {block.name for block in diffusers_topology(*published("sdxl")).blocks}
    assert "down_blocks.0.resnets.0" in names
    assert "mid_block.attentions.0.transformer_blocks.9" in names
    assert "mid_block.attentions.0.proj_in" in names
    assert "up_blocks.0.upsamplers.0.conv" in names


@pytest.mark.parametrize("name", ["ddpm-cifar10", "sd-v1", "sdxl"])
def test_splits_are_where_a_stored_state_is_joined(name):
    """The first part of what a shortcut reads is what is left without the stored state."""
    network, inputs = published(name)
    topology = diffusers_topology(network, inputs)
    shortcuts = [
        layer.name
        for layer in topology.layers
        if layer.role == "shortcut" and layer.name.startswith("up_blocks")
    ]
    found = {layer.name: layer.split for layer in topology.layers if layer.split is not None}
    assert shortcuts == list(found)
    # Arithmetic: the state comes from the residual block before, or from the level before.
    channels = network.config.block_out_channels
    per_level = network.config.layers_per_block + 1
    for name_, split in found.items():
        level, block = (int(part) for part in name_.split(".")[1::2][:2])
        before = channels[::-1][max(0, level - 1)]
        assert (before if block == 0 else channels[::-1][level]) == split
    assert per_level * len(channels) == len(found)


def tiny(name: str) -> tuple[nn.Module, dict]:
    """Networks that can be run, also of kinds that no code mentions."""
    torch.manual_seed(0)
    sample = torch.randn(1, 4, 8, 8)
    blocks = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
    }
    if name == "scale-shift":
        network = UNet2DModel(
            **blocks,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="timestep",
        )
        labels = torch.zeros(1)
        return network, {"sample": sample, "timestep": TIME, "class_labels": labels}
    if name == "projection":
        network = UNet2DConditionModel(
            **blocks,
            down_block_types=("CrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
            up_block_types=("ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=6,
        )
        return network, {
            "sample": sample,
            "timestep": TIME,
            "encoder_hidden_states": torch.randn(1, 3, 8),
            "class_labels": torch.randn(1, 6),
        }
    assert name == "dit"
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=5,
        norm_num_groups=4,
    )
    labels = torch.zeros(1, dtype=torch.int64)
    return network, {"hidden_states": sample, "timestep": TIME, "class_labels": labels}


@pytest.mark.parametrize("name", ["scale-shift", "projection", "dit"])
def test_order_is_that_of_a_real_run(name):
    """What was followed without values is what runs with them."""
    network, inputs = tiny(name)
    expected: list[str] = []
    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda *_, key=key: expected.append(key))
    network.eval()(**inputs)
    topology = diffusers_topology(network, inputs)
    assert list(dict.fromkeys(expected)) == [layer.name for layer in topology.layers]
    assert topology.time_mlp
    assert topology.time_projections


@pytest.mark.parametrize("name", ["scale-shift", "projection"])
def test_class_embeddings_enter_behind_the_time_mlp(name):
    """What is left to tabulate is the output of the time MLP."""
    topology = diffusers_topology(*tiny(name))
    assert ("time_embedding.linear_2",) == topology.time_features
    assert any(layer.role == "condition" for layer in topology.layers)


def test_network_outside_of_diffusers_is_followed_as_it_is():
    """Without a configuration there is no twin."""

    class Plain(nn.Module):
        """Two convolutions, and the time between them."""

        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Linear(1, 6)
            self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 3, 3)

        def forward(self, x, timestep):
            """Something."""
            return self.last(self.first(x) + self.time(timestep[:, None])[:, :, None, None])

    topology = diffusers_topology(Plain(), {"x": torch.zeros(1, 3, 8, 8), "timestep": TIME})
    assert {"first": "input", "time": "time-projection", "last": "output"} == {
        layer.name: layer.role for layer in topology.layers
    }


def test_weight_of_an_unknown_kind_is_refused():
    """It would silently stay float."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(2), nn.Conv1d(3, 3, 1))
    network.forward = lambda x, timestep: nn.Sequential.forward(network, x + timestep)
    with pytest.raises(api.QuantizationError, match="Conv1d"):
        diffusers_topology(network, {"x": torch.zeros(1, 3, 8, 8), "timestep": TIME})


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"sample": torch.zeros(1, 4, 8, 8)}, "'timestep' among the inputs"),
        ({"sample": torch.zeros(1, 4, 8, 8), "timestep": TIME}, "cannot be called with"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs, match):
    """The message says what was given."""
    network, _ = tiny("projection")
    with pytest.raises(api.QuantizationError, match=match):
        diffusers_topology(network, inputs)
