"""The backend honours a state's cache of time projections exactly as the simulation does."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfq_bench.api import timestep_tensor
from tfq_bench.quant.calibrate.temporal import temporal_features
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.temporal_cache import TemporalCache
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme
from tfq_bench_openvino.backend import OpenVinoBackend


@pytest.mark.parametrize("selected", [(0, 1, 2, 3), (1, 3)])
def test_temporal_features_are_looked_up_in_the_model_too(selected):
    """Looked up at the selected steps, computed at the others; the model predicts by them."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=4, abits=8))
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
    lowered, simulated = OpenVinoBackend().lower(loaded, state), simulate(loaded, state)
    found = temporal_features(loaded, lowered)
    for name, rows in features.items():
        assert torch.equal(rows.half().float()[mask], found[name][mask])
    assert list(layers) == [use.layer for use in lowered.kernels]
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for step, timestep in enumerate(loaded.sampler.timesteps):
        t = timestep_tensor(timestep, 2, "cpu")
        for one in (lowered, simulated):
            one.step.set(step)
        expected = loaded.model.predict(simulated.network, x, t, {})
        y = loaded.model.predict(lowered.network, x, t, {})
        assert (y - expected).norm() <= 0.01 * expected.norm()
