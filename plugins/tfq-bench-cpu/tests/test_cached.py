"""The backend honours a state's cache of time projections exactly as the simulation does."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfq_bench.quant.calibrate.temporal import temporal_features
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.temporal_cache import TemporalCache
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme
from tfq_bench_cpu.backend import CpuBackend


@pytest.mark.parametrize("selected", [(0, 1, 2, 3), (1, 3)])
def test_temporal_features_equal_the_simulated_ones(selected):
    """Looked up at the selected steps, computed at the others, with a kernel only then."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    mask = torch.zeros(4, dtype=torch.bool)
    mask[list(selected)] = True
    features = temporal_features(loaded, loaded.network)
    cache = {
        name: TemporalCache(
            name=name,
            bits=16,
            values=rows.half(),
            scale=None,
            zero_point=None,
            selected=mask,
        )
        for name, rows in features.items()
    }
    gone = {*loaded.topology.time_mlp, *loaded.topology.time_projections} if mask.all() else set()
    layers = {name: layer for name, layer in state.layers.items() if name not in gone}
    state = dataclasses.replace(state, layers=layers, cache=cache)
    lowered = CpuBackend().lower(loaded, state)
    expected = temporal_features(loaded, simulate(loaded, state))
    found = temporal_features(loaded, lowered)
    for name, rows in features.items():
        assert torch.equal(rows.half().float()[mask], found[name][mask])
        torch.testing.assert_close(found[name], expected[name])
    assert 4 * len(layers) == sum(lowered.executed.values())
    assert list(layers) == [use.layer for use in lowered.kernels]
