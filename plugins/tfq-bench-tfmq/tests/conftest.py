"""The tiny model with 6 steps, its temporal block, and a working network of it."""

from __future__ import annotations

import pytest

from tfq_bench.api import LoadedModel, Scheme
from tfq_bench.quant.working import WorkingNetwork
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_tfmq.block import TemporalBlock, find_temporal_block
from tfq_bench_tfmq.presets import layer_plan


@pytest.fixture
def loaded() -> LoadedModel:
    """The tiny model."""
    return load_tiny(steps=6)


@pytest.fixture
def block(loaded) -> TemporalBlock:
    """Its temporal block: two layers of the time MLP and two projections."""
    return find_temporal_block(loaded)


@pytest.fixture
def working(loaded) -> WorkingNetwork:
    """Weights rounded to nearest at 4 bits."""
    return WorkingNetwork(loaded, layer_plan(loaded, Scheme(wbits=4, abits=8)), weights="mse")
