"""The published networks at full size: temporal modules, order, roles and blocks."""

from collections import Counter

import pytest

UNETS = ("ddpm-cifar10", "ldm-4", "sd-v1", "sd-v2", "sdxl")


def names(topology, role):
    """The layers of a role, in execution order."""
    return tuple(layer.name for layer in topology.layers if layer.role == role)


@pytest.mark.parametrize(
    ("name", "count", "channels"),
    [
        ("ddpm-cifar10", 22, 4_992),
        ("ldm-4", 22, 12_992),
        ("sd-v1", 22, 20_160),
        ("sd-v2", 22, 20_160),
        ("sdxl", 17, 13_760),
        ("pixart-sigma", 1, 6_912),
        ("pixart-alpha", 1, 6_912),
    ],
)
def test_time_projections_are_as_many_and_as_wide_as_published(topology_of, name, count, channels):
    """Their number and the sum of their outputs; the time MLP has two layers."""
    topology = topology_of(name)
    projections = [topology.layer(one) for one in topology.time_projections]
    assert (count, channels) == (len(projections), sum(one.weight_shape[0] for one in projections))
    assert {"time-projection"} == {one.role for one in projections}
    assert 2 == len(topology.time_mlp)


@pytest.mark.parametrize(
    ("name", "gmac"),
    [("ddpm-cifar10", 6.0), ("ldm-4", 96.0), ("sd-v1", 338.7), ("dit-xl-2", 114.4)],
)
def test_work_is_that_of_the_real_resolution(topology_of, name, gmac):
    """Multiply-accumulates of the layers; those between queries and keys are not among them."""
    assert pytest.approx(gmac, rel=0.02) == sum(la.macs for la in topology_of(name).layers) / 1e9


@pytest.mark.parametrize("name", ["ddpm-cifar10", "ldm-4", "sd-v1", "sd-v2"])
def test_projections_of_the_timestep_alone_can_be_tabulated(topology_of, name):
    """Where no condition is added to the time embedding, features are the projections."""
    topology = topology_of(name)
    assert topology.time_projections == topology.time_features
    assert ("time_embedding.linear_1", "time_embedding.linear_2") == topology.time_mlp


def test_sdxl_has_three_kinds_of_embedding_layers(topology_of):
    """Those of the timestep, those of text and size, and the projections of their sum."""
    topology = topology_of("sdxl")
    assert ("time_embedding.linear_1", "time_embedding.linear_2") == topology.time_mlp
    assert ("add_embedding.linear_1", "add_embedding.linear_2") == names(topology, "condition")
    assert all(name.endswith(".time_emb_proj") for name in topology.time_projections)
    assert ("time_embedding.linear_2",) == topology.time_features


def test_dit_has_an_embedder_in_each_block(topology_of):
    """28 blocks of six modulations of 1,152, one of two before the output, 28 time MLPs."""
    topology = topology_of("dit-xl-2")
    blocks = [f"transformer_blocks.{index}" for index in range(28)]
    assert [*(f"{block}.norm1.linear" for block in blocks), "proj_out_1"] == list(
        topology.time_projections
    )
    widths = [topology.layer(name).weight_shape[0] for name in topology.time_projections]
    assert [6 * 1152] * 28 + [2 * 1152] == widths
    embedders = [f"{block}.norm1.emb.timestep_embedder" for block in blocks]
    assert [
        f"{embedder}.{part}" for embedder in embedders for part in ("linear_1", "linear_2")
    ] == list(topology.time_mlp)
    assert [f"{embedder}.linear_2" for embedder in embedders] == list(topology.time_features)
    assert ["pos_embed.proj", *blocks, "proj_out_1", "proj_out_2"] == [
        block.name for block in topology.blocks
    ]
    assert ("proj_out_2",) == names(topology, "output")
    assert 28 == len(topology.attention)


def test_pixart_modulations_are_features_unless_the_size_is_a_condition(topology_of):
    """Sigma's modulation and the embedding that its last block reads depend on t alone."""
    embedder, modulation = "adaln_single.emb.timestep_embedder.linear_2", "adaln_single.linear"
    assert (embedder, modulation) == topology_of("pixart-sigma").time_features
    assert (embedder,) == topology_of("pixart-alpha").time_features
    caption = ("caption_projection.linear_1", "caption_projection.linear_2")
    assert caption == names(topology_of("pixart-sigma"), "condition")
    assert 6 == len(names(topology_of("pixart-alpha"), "condition"))


@pytest.mark.parametrize("name", UNETS)
def test_unet_runs_down_through_the_middle_and_up(topology_of, name):
    """`up_blocks` are registered before `mid_block`, but run after it."""
    stages = [layer.name.split(".")[0] for layer in topology_of(name).layers]
    order = dict.fromkeys(stage for stage in stages if "block" in stage)
    assert ["down_blocks", "mid_block", "up_blocks"] == list(order)
    assert stages.index("conv_in") < stages.index("down_blocks")
    assert "conv_out" == stages[-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ddpm-cifar10", {"conv": 44, "shortcut": 13, "resample": 6, "attention": 24}),
        ("ldm-4", {"conv": 44, "shortcut": 15, "resample": 6, "attention": 64}),
        (
            "sd-v1",
            {
                **{"conv": 44, "shortcut": 14, "resample": 6, "attention": 160},
                **{"feed-forward": 32},
            },
        ),
        (
            "sdxl",
            {
                **{"conv": 34, "shortcut": 11, "resample": 4, "attention": 582},
                **{"feed-forward": 140, "condition": 2},
            },
        ),
    ],
)
def test_layers_of_a_unet_have_their_roles(topology_of, name, expected):
    """One input, one output; `other` are the projections around transformer blocks."""
    topology = topology_of(name)
    temporal = {"time-mlp": 2, "time-projection": len(topology.time_projections)}
    found = Counter(layer.role for layer in topology.layers)
    assert {"input": 1, "output": 1, **temporal, **expected} == found
    assert ("conv_in",) == names(topology, "input")
    assert ("conv_out",) == names(topology, "output")
    assert all(one.endswith((".proj_in", ".proj_out")) for one in names(topology, "other"))


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("ddpm-cifar10", r"resnets\.\d+|attentions\.\d+"),
        ("sd-v1", r"resnets\.\d+|transformer_blocks\.0"),
        ("sdxl", r"resnets\.\d+|transformer_blocks\.\d"),
    ],
)
def test_blocks_are_residual_attention_and_transformer_blocks(topology_of, name, units):
    """Each lone layer is a block of its own name; all others are of the repeated kinds."""
    import re

    for block in topology_of(name).blocks:
        if block.layers != (block.name,):
            assert re.search(rf"\.({units})$", block.name), block.name
            assert len(block.layers) > 1
            assert all(layer.startswith(f"{block.name}.") for layer in block.layers)


@pytest.mark.parametrize(("name", "count"), [("ddpm-cifar10", 6), ("sd-v1", 32), ("sdxl", 140)])
def test_every_attention_can_be_observed(topology_of, name, count):
    """So that a policy can quantize its products."""
    assert count == len(topology_of(name).attention)
