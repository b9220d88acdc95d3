"""Outputs of finished blocks, played back."""

import pytest
import torch
from torch import nn

from tfq_bench.quant.learn.activation_cache import Replay


class Counting(nn.Module):
    """A block that counts how often it computes."""

    def __init__(self):
        super().__init__()
        self.computed = 0

    def forward(self, x):
        self.computed += 1
        return (2.0 * x, x + 1.0)


class Network(nn.Module):
    """Runs its block `times` times per call and writes into what it returns."""

    def __init__(self, times):
        super().__init__()
        self.block, self.times = Counting(), times

    def forward(self, x):
        for _ in range(self.times):
            first, second = self.block(x)
            x = first.add_(second)
        return x


def _pass(network, replay, x):
    outputs = []
    for start in range(0, len(x), 2):
        rows = slice(start, min(start + 2, len(x)))
        with replay.rows(rows):
            outputs.append(network(x[rows]))
    return torch.cat(outputs)


@pytest.mark.parametrize(("times", "limit"), [(1, 10_000), (2, 10_000), (1, 10)])
def test_a_second_pass_gives_the_same_values(generator, times, limit):
    """Played back or computed, also when a block runs twice or does not fit, or is written into."""
    network = Network(times)
    x = torch.randn(5, 3, generator=generator)
    replay = Replay(network, ["block", "no.such.block"], count=5, limit=limit)
    expected = _pass(network, replay, x)
    computed = network.block.computed
    assert torch.equal(expected, _pass(network, replay, x))
    assert torch.equal(expected, _pass(network, replay, x))
    again = network.block.computed > computed
    assert again == (times == 2 or limit == 10)
    assert "forward" not in vars(network.block)


def test_outputs_have_one_layout_computed_or_played_back(generator):
    """Norms and sums add in the order of memory, so a second layout would change last bits."""

    class Turned(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2)

    block = Turned()
    network = nn.Sequential(block, nn.Identity())
    strides = []
    network[1].register_forward_pre_hook(lambda _, inputs: strides.append(inputs[0].stride()))
    replay = Replay(network, ["0"], count=2, limit=10_000)
    for _ in range(2):
        with replay.rows(slice(0, 2)):
            network(torch.randn(2, 3, 4, generator=generator))
    assert [(12, 3, 1)] * 2 == strides


def test_forgotten_blocks_are_computed_anew(generator):
    """After `forget` the network's present values count, and the room is free again."""
    network = Network(1)
    x = torch.randn(5, 3, generator=generator)
    replay = Replay(network, ["block"], count=5, limit=5 * 3 * 4 * 2)
    _pass(network, replay, x)
    replay.forget()
    assert torch.equal(_pass(network, replay, 3.0 * x), Network(1)(3.0 * x))
    computed = network.block.computed
    _pass(network, replay, 3.0 * x)
    assert computed == network.block.computed
