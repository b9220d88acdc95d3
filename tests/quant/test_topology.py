"""Layers in the order in which they run, and nothing with a weight overlooked."""

import pytest
import torch
from torch import nn

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.layers import find_layer, replace_layer
from tfq_bench.quant.topology import trace_topology


def other(name, module):
    """Every layer has the same role."""
    return "other"


def test_traced_topology_equals_the_one_written_by_hand(loaded):
    """Order, roles, blocks, shapes, splits and multiply-accumulates of the tiny network."""
    expected = loaded.topology
    found = trace_topology(
        loaded.network,
        lambda network: network(torch.zeros(1, 3, 8, 8), torch.zeros(1)),
        lambda name, module: expected.layer(name).role,
        lambda name: expected.layer(name).block,
        splits={layer.name: layer.split for layer in expected.layers if layer.split},
    )
    assert expected == found


def test_diffusers_unet_runs_its_middle_before_the_way_up():
    """`up_blocks` is registered before `mid_block`, but runs after it."""
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=8,
    ).eval()
    topology = trace_topology(
        network,
        lambda net: net(torch.zeros(1, 3, 8, 8), 0),
        other,
        lambda name: name.split(".")[0],
    )
    registered = [name.split(".")[0] for name, _ in network.named_modules()]
    assert registered.index("up_blocks") < registered.index("mid_block")
    assert [block.name for block in topology.blocks] == [
        "time_embedding",
        "conv_in",
        "down_blocks",
        "mid_block",
        "up_blocks",
        "conv_out",
    ]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(convolutions) == len(topology.layers)
    assert topology.layer("conv_in").macs == 8 * 8 * 3 * 8 * 9


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv1d(2, 2, 3), torch.zeros(1, 2, 8)),
        (nn.ConvTranspose2d(2, 2, 3), torch.zeros(1, 2, 8, 8)),
    ],
)
def test_weight_of_an_unknown_type_is_an_error(module, x):
    """It would stay float without anybody noticing."""
    with pytest.raises(QuantizationError, match=type(module).__name__):
        trace_topology(nn.Sequential(module), lambda net: net(x), other, str)


def test_embeddings_stay_float_by_declaration():
    """A look-up table multiplies nothing."""
    network = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
    topology = trace_topology(network, lambda net: net(torch.tensor([1])), other, str)
    assert [layer.name for layer in topology.layers] == ["1"]


def test_circular_padding_is_an_error():
    """Kernels pad with zeros."""
    network = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))
    with pytest.raises(QuantizationError, match="'circular'"):
        trace_topology(network, lambda net: net(torch.zeros(1, 2, 8, 8)), other, str)


@pytest.mark.parametrize("splits", [{"0": 0}, {"0": 2}, {"nowhere": 1}])
def test_split_that_does_not_fit_is_an_error(splits):
    """Both halves hold a channel, and the layer exists."""
    network = nn.Sequential(nn.Conv2d(2, 2, 3))
    with pytest.raises(QuantizationError, match="split point"):
        trace_topology(network, lambda net: net(torch.zeros(1, 2, 8, 8)), other, str, splits=splits)


def test_layer_is_replaced_where_it_is(loaded):
    """Nested names work; an unknown name offers the nearest."""
    module = nn.Identity()
    replace_layer(loaded.network, "time_mlp.2", module)
    assert loaded.network.time_mlp[2] is module
    with pytest.raises(QuantizationError, match=r"did you mean 'first.conv1'"):
        find_layer(loaded.network, "first.conv11")
    with pytest.raises(QuantizationError, match="found GroupNorm"):
        replace_layer(loaded.network, "norm_out", module)
