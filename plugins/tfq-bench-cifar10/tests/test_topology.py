"""Roles, order, blocks and split points of the embedded network."""

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from tfq_bench_cifar10.network import NETWORKS, build_unet
from tfq_bench_cifar10.topology import network_topology


@pytest.fixture(scope="module")
def network():
    """The network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_unet().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def topology(network):
    """What the host is told of it."""
    return network_topology(NETWORKS["unet"], network)


def inputs():
    """One image and its timestep."""
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor(
        [500]
    )


def test_every_layer_has_its_role(topology):
    """93 layers: 17 residual blocks, six attentions of four projections, none left over."""
    expected = {
        "input": 1,
        "output": 1,
        "time-mlp": 2,
        "time-projection": 17,
        "conv": 34,
        "shortcut": 10,
        "attention": 24,
        "resample": 4,
    }
    assert expected == Counter(layer.role for layer in topology.layers)
    assert Counter(layer.kind for layer in topology.layers) == {"conv2d": 50, "linear": 43}


def test_time_layers_are_the_embedding_and_one_projection_per_residual_block(topology):
    """The two layers of the embedding run first; each residual block has one projection of it."""
    embedding = ("time_embedding.linear_1", "time_embedding.linear_2")
    assert embedding == topology.time_mlp == tuple(la.name for la in topology.layers[:2])
    residual = [block.name for block in topology.blocks if ".resnets." in block.name]
    assert [f"{name}.time_emb_proj" for name in residual] == list(topology.time_projections)
    for name in topology.time_projections:
        assert topology.layer(name).weight_shape[1] == 256


def test_blocks_run_down_through_the_middle_and_up(topology):
    """Blocks stand in the order of execution, not of registration; lone layers are blocks."""
    stages = dict.fromkeys(block.name.split(".")[0] for block in topology.blocks)
    expected = ["time_embedding", "conv_in", "down_blocks", "mid_block", "up_blocks", "conv_out"]
    assert expected == list(stages)
    sizes = Counter(len(block.layers) for block in topology.blocks)
    # 7 residual blocks without a shortcut, 10 with one; 6 attentions of four; 8 lone layers.
    assert sizes == {3: 7, 4: 10 + 6, 1: 8}


def test_splits_are_where_the_state_ends_and_the_stored_one_begins(network, topology):
    """Each shortcut on the way up is split at the width of what the block handed on."""
    splits = {layer.name: layer.split for layer in topology.layers if layer.split is not None}
    up = [la.name for la in topology.layers if la.role == "shortcut" and "up_blocks" in la.name]
    assert up == list(splits)
    seen = {}

    def listen(block, args):
        """Widths of the state that enters the block and of the stored tensors, last first."""
        state, stored = args[0], args[1][-len(block.resnets) :]
        seen[block] = (state.shape[1], [tensor.shape[1] for tensor in stored[::-1]])

    handles = [b.register_forward_pre_hook(listen) for b in network.up_blocks]
    network(*inputs())
    for handle in handles:
        handle.remove()
    for number, block in enumerate(network.up_blocks):
        width, stored = seen[block]
        for place, resnet in enumerate(block.resnets):
            name = f"up_blocks.{number}.resnets.{place}.conv_shortcut"
            # The first block gets the state from below; later ones what the one before made.
            assert width == splits[name]
            assert width + stored[place] == topology.layer(name).weight_shape[1]
            width = resnet.out_channels


def test_a_split_layer_is_the_sum_of_its_halves(network, topology):
    """Both halves of each split shortcut, convolved apart, add up to the layer's output."""
    found = {}
    names = [layer.name for layer in topology.layers if layer.split is not None]
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: found.update({name: (args[0], output)})
        )
        for name in names
    ]
    network(*inputs())
    for handle in handles:
        handle.remove()
    for name in names:
        (x, output), module = found[name], network.get_submodule(name)
        at = topology.layer(name).split
        low = F.conv2d(x[:, :at].double(), module.weight[:, :at].double(), module.bias.double())
        high = F.conv2d(x[:, at:].double(), module.weight[:, at:].double())
        torch.testing.assert_close((low + high).float(), output, rtol=1e-4, atol=1e-4)


def test_work_is_counted_per_image(topology):
    """A 3x3 convolution at 32x32 costs 32 * 32 * C_in * 9 * C_out; one image costs 1.5 GMAC."""
    assert topology.layer("conv_in").macs == 32 * 32 * 3 * 9 * 64
    assert topology.layer("mid_block.attentions.0.to_q").macs == 8 * 8 * 128 * 128
    assert topology.layer("time_embedding.linear_1").macs == 64 * 256
    assert sum(layer.macs for layer in topology.layers) == 1_502_511_104


def test_roles_of_the_conditional_unet():
    """Eleven residual blocks read t; seven transformers of ten layers, two of them feed-forward."""
    found = network_topology(NETWORKS["conditional"], NETWORKS["conditional"].build(0.0))
    expected = {
        "input": 1,
        "output": 1,
        "time-mlp": 2,
        "time-projection": 11,
        "conv": 22,
        "shortcut": 7,
        "attention": 7 * 10,
        "feed-forward": 7 * 2,
        "resample": 4,
    }
    assert expected == Counter(layer.role for layer in found.layers)
    assert found.time_features == found.time_projections
    up = [la.name for la in found.layers if la.role == "shortcut" and "up_blocks" in la.name]
    assert up == [layer.name for layer in found.layers if layer.split is not None]


def test_roles_of_the_dit():
    """Each of ten layers has its own embedder of t; what a class is added to cannot be cached."""
    found = network_topology(NETWORKS["dit"], NETWORKS["dit"].build(0.0))
    expected = {
        "input": 1,
        "output": 1,
        "time-mlp": 10 * 2,
        "time-projection": 10 + 1,
        "attention": 10 * 4,
        "feed-forward": 10 * 2,
    }
    assert expected == Counter(layer.role for layer in found.layers)
    embedders = [f"transformer_blocks.{i}.norm1.emb.timestep_embedder.linear_2" for i in range(10)]
    assert embedders == list(found.time_features)
