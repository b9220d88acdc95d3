"""Published networks at full size on the meta device, and small ones of each family on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

from tfq_bench_diffusers.topology import diffusers_topology


@dataclass(frozen=True)
class Example:
    """A network's class, its configuration, and its inputs for one image.

    Shapes are given as tuples; `time` is any timestep, `label` any class.
    """

    kind: str
    config: dict[str, Any]
    inputs: dict[str, Any]

    def build(self, device: str) -> nn.Module:
        """The network, with random weights where it has some."""
        with torch.device(device), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network = getattr(diffusers, self.kind)(**self.config)
        return network.eval().requires_grad_(False)

    def values(self, seed: int = 0) -> dict[str, Any]:
        """Random inputs."""
        return _values(self.inputs, torch.Generator().manual_seed(seed))


def _values(shape: Any, generator: torch.Generator) -> Any:
    if isinstance(shape, dict):
        return {name: _values(inner, generator) for name, inner in shape.items()}
    if shape == "time":
        return torch.randint(1, 1000, (1,), generator=generator)
    if shape == "label":
        return torch.randint(0, 10, (1,), generator=generator)
    return torch.randn(shape, generator=generator)


DIT = {"hidden_states": (1, 4, 32, 32), "timestep": "time", "class_labels": "label"}

PUBLISHED = {
    "ddpm-cifar10": Example(
        "UNet2DModel",
        {
            "sample_size": 32,
            "block_out_channels": (128, 256, 256, 256),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": None,
            "downsample_padding": 0,
            "freq_shift": 1,
            "flip_sin_to_cos": False,
            "norm_eps": 1e-6,
        },
        {"sample": (1, 3, 32, 32), "timestep": "time"},
    ),
    "ldm-4": Example(
        "UNet2DModel",
        {
            "sample_size": 64,
            "block_out_channels": (224, 448, 672, 896),
            "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
            "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
            "attention_head_dim": 32,
        },
        {"sample": (1, 3, 64, 64), "timestep": "time"},
    ),
    "sd-v1": Example(
        "UNet2DConditionModel",
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        {
            "sample": (1, 4, 64, 64),
            "timestep": "time",
            "encoder_hidden_states": (1, 77, 768),
        },
    ),
    "sd-v2": Example(
        "UNet2DConditionModel",
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        {
            "sample": (1, 4, 96, 96),
            "timestep": "time",
            "encoder_hidden_states": (1, 77, 1024),
        },
    ),
    "sdxl": Example(
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        {
            "sample": (1, 4, 128, 128),
            "timestep": "time",
            "encoder_hidden_states": (1, 77, 2048),
            "added_cond_kwargs": {"text_embeds": (1, 1280), "time_ids": (1, 6)},
        },
    ),
    "dit-xl-2": Example(
        "DiTTransformer2DModel",
        {"sample_size": 32, "num_layers": 28, "out_channels": 8, "num_embeds_ada_norm": 1000},
        DIT,
    ),
    "pixart-sigma": Example(
        "PixArtTransformer2DModel",
        {"sample_size": 128, "caption_channels": 4096, "use_additional_conditions": False},
        {
            "hidden_states": (1, 4, 128, 128),
            "timestep": "time",
            "encoder_hidden_states": (1, 300, 4096),
        },
    ),
    "pixart-alpha": Example(
        "PixArtTransformer2DModel",
        {"sample_size": 128, "caption_channels": 4096},
        {
            "hidden_states": (1, 4, 128, 128),
            "timestep": "time",
            "encoder_hidden_states": (1, 120, 4096),
            "added_cond_kwargs": {"resolution": (1, 2), "aspect_ratio": (1, 1)},
        },
    ),
}

SMALL_UNET = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
SMALL_CROSS = {
    **SMALL_UNET,
    "cross_attention_dim": 12,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
SMALL_TEXT = {
    "sample": (1, 4, 16, 16),
    "timestep": "time",
    "encoder_hidden_states": (1, 5, 12),
}
SMALL_TRANSFORMER = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 6,
    "in_channels": 4,
}

SMALL = {
    "small-ddpm": Example(
        "UNet2DModel",
        {
            **SMALL_UNET,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        },
        {"sample": (1, 3, 16, 16), "timestep": "time"},
    ),
    "small-sd": Example("UNet2DConditionModel", SMALL_CROSS, SMALL_TEXT),
    "small-sdxl": Example(
        "UNet2DConditionModel",
        {
            **SMALL_CROSS,
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 32,
        },
        {**SMALL_TEXT, "added_cond_kwargs": {"text_embeds": (1, 8), "time_ids": (1, 6)}},
    ),
    "small-dit": Example(
        "DiTTransformer2DModel",
        {**SMALL_TRANSFORMER, "num_embeds_ada_norm": 10},
        {**DIT, "hidden_states": (1, 4, 8, 8)},
    ),
    "small-pixart": Example(
        "PixArtTransformer2DModel",
        {
            **SMALL_TRANSFORMER,
            "cross_attention_dim": 12,
            "caption_channels": 9,
            "use_additional_conditions": True,
        },
        {
            "hidden_states": (1, 4, 8, 8),
            "timestep": "time",
            "encoder_hidden_states": (1, 5, 9),
            "added_cond_kwargs": {"resolution": (1, 2), "aspect_ratio": (1, 1)},
        },
    ),
    # Networks that no model of the suite has.
    "scale-shift": Example(
        "UNet2DModel",
        {
            **SMALL_UNET,
            "block_out_channels": (8, 24, 16),
            "layers_per_block": 2,
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "resnet_time_scale_shift": "scale_shift",
            "num_class_embeds": 10,
        },
        {"sample": (1, 3, 16, 16), "timestep": "time", "class_labels": "label"},
    ),
    "skip": Example(
        "UNet2DModel",
        {
            **SMALL_UNET,
            "block_out_channels": (32, 64),  # skip stages have groups of their own
            "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
            "time_embedding_type": "fourier",
        },
        {"sample": (1, 3, 16, 16), "timestep": "time"},
    ),
    "class-timestep": Example(
        "UNet2DConditionModel",
        {**SMALL_CROSS, "class_embed_type": "timestep"},
        {**SMALL_TEXT, "class_labels": "label"},
    ),
    "class-projection": Example(
        "UNet2DConditionModel",
        {
            **SMALL_CROSS,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 10,
            "class_embeddings_concat": True,
        },
        {**SMALL_TEXT, "class_labels": (1, 10)},
    ),
    "guided": Example(
        "UNet2DConditionModel",
        {**SMALL_CROSS, "time_cond_proj_dim": 6},
        {**SMALL_TEXT, "timestep_cond": (1, 6)},
    ),
    "two-streams": Example(
        "SD3Transformer2DModel",
        {
            **SMALL_TRANSFORMER,
            "caption_projection_dim": 12,
            "joint_attention_dim": 9,
            "pooled_projection_dim": 7,
            "out_channels": 4,
            "pos_embed_max_size": 8,
        },
        {
            "hidden_states": (1, 4, 8, 8),
            "timestep": "time",
            "encoder_hidden_states": (1, 5, 9),
            "pooled_projections": (1, 7),
        },
    ),
}


@pytest.fixture(params=list(SMALL))
def small(request) -> Example:
    """Each small network in turn."""
    return SMALL[request.param]


@pytest.fixture(scope="session")
def example() -> Callable[[str], Example]:
    """The example of a name."""
    return lambda name: {**SMALL, **PUBLISHED}[name]


@pytest.fixture(scope="session")
def topology_of(example) -> Callable[[str], Any]:
    """The topology of a named network, found without weights."""
    known = {}

    def find(name: str) -> Any:
        if name not in known:
            one = example(name)
            known[name] = diffusers_topology(one.build("meta"), one.values())
        return known[name]

    return find
