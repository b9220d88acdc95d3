"""What a watched block accepts of its fused pass: rounding, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tfq_bench.api import LoweringError
from tfq_bench_cuda.blocks.fused import LIMIT, FusedBlock


class Offset(nn.Module):
    """The distance of values near 1 from 1: rounding them to bfloat16 moves most of it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x.bfloat16()) - 1


class Fused(FusedBlock):
    """The same without the rounding, times a factor."""

    factor = 1.0

    def fused(self, x):
        return ((x - 1) * self.factor).bfloat16()


@pytest.fixture
def fused():
    """A block whose layer is watched."""
    block = Offset()
    made = Fused("block", block, [block.layer])
    made.install()
    block.layer.register_forward_hook(lambda *_: None)
    return made


X = 1 + 0.01 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def test_as_much_as_another_rounding_moves_is_accepted(fused):
    """Though it is more than the limit; what is given are the layers' numbers."""
    expected = fused._single(X)
    assert fused._apart(expected, fused.fused(X)) > LIMIT
    assert torch.equal(fused.block(X), expected)


def test_more_than_rounding_is_refused(fused):
    """With both numbers."""
    fused.factor = 0.4
    with pytest.raises(LoweringError, match=r"its output is 0\.6") as refused:
        fused.block(X)
    assert LIMIT < refused.value.context.expected < refused.value.context.found


def test_without_rounding_the_limit_holds(fused):
    """In float32 nothing moves when inputs are rounded otherwise."""
    fused._single = lambda x: fused.block.layer(x) - 1
    fused.fused = lambda x: (x - 1) * 0.95
    with pytest.raises(LoweringError, match=r"more than 0\.0312"):
        fused.block(X)


def test_hooks_are_where_they_were(fused):
    """Those that watch neither see the other rounding nor are lost."""
    seen = []
    fused.block.layer.register_forward_hook(lambda *_: seen.append(1))
    fused.block(X)
    fused.block(X)
    assert len(seen) == 2
