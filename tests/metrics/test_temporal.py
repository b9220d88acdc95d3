"""Errors of the temporal features."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tfq_bench.metrics.temporal import Temporal
from tfq_bench.quant.calibrate.temporal import temporal_features
from tfq_bench.quant.state.temporal_cache import TemporalCache
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.types import Scheme
from tfq_bench.types.networks import Lowered, StepCursor


def _doubled(tiny) -> Lowered:
    """A network whose first time projection gives twice its value."""
    network = copy.deepcopy(tiny.network)
    with torch.no_grad():
        network.first.time.weight.mul_(2)
        network.first.time.bias.mul_(2)
    return Lowered(network=network, step=StepCursor("cpu"), execution="simulated")


def test_a_doubled_projection_has_error_one_in_its_block(make_inputs, tiny):
    """One block at error 1 and one at 0 average to 1/2, without changing any direction."""
    inputs = make_inputs(reference_cell="fp-cell", network=_doubled(tiny))
    values = {value.definition.name: value for value in Temporal().evaluate(inputs)}
    assert pytest.approx(0.5) == values["temporal-error"].value
    assert pytest.approx(0.0, abs=1e-6) == values["temporal-cosine"].value
    assert values["temporal-mismatch"].value == 0.0
    series = values["temporal-error"].series
    assert tuple(float(t) for t in tiny.sampler.timesteps) == series["timestep"]
    assert pytest.approx(series["block:first"]) == [1.0] * 4
    assert pytest.approx(series["block:second"]) == [0.0] * 4
    assert pytest.approx(series["relative_error"]) == [0.5] * 4
    assert {"timestep", "one_minus_cosine", "block:first", "block:second"} == set(
        values["temporal-cosine"].series
    )


def test_mismatch_says_by_how_many_steps(make_inputs, tiny, monkeypatch):
    """A block that always shows step 2's feature is 2, 1, 0 and -1 steps ahead of its own."""

    def features(loaded, network, **_):
        rows = temporal_features(loaded, loaded.network)
        if isinstance(network, Lowered):
            rows["first.time"] = rows["first.time"][2].expand_as(rows["first.time"])
        return rows

    monkeypatch.setattr("tfq_bench.metrics.temporal.temporal_features", features)
    inputs = make_inputs(reference_cell="fp-cell", network=_doubled(tiny))
    values = {value.definition.name: value for value in Temporal().evaluate(inputs)}
    series = values["temporal-mismatch"].series
    assert (2.0, 1.0, 0.0, -1.0) == series["block:first"]
    assert (0.0, 0.0, 0.0, 0.0) == series["block:second"]
    assert (0.5, 0.5, 0.0, 0.5) == series["mismatch"]
    assert 3 / 8 == values["temporal-mismatch"].value


def test_the_share_of_the_cache_is_read_from_the_state(make_inputs, tiny):
    """Of all entries, at each step, and where in each block: one of eight is looked up here."""
    feature = torch.ones(4, 16)
    cache = TemporalCache(
        name="first.time",
        bits=16,
        values=feature.half(),
        scale=None,
        zero_point=None,
        selected=torch.tensor([False, True, False, False]),
    )
    network = _doubled(tiny)

    def share(state):
        inputs = make_inputs(reference_cell="fp-cell", network=network, state=state)
        values = {value.definition.name: value for value in Temporal().evaluate(inputs)}
        return values["temporal-cache-share"]

    state = tiny_state(tiny, Scheme(wbits=4, abits=8))
    found = share(replace(state, cache={cache.name: cache}))
    assert (1 / 8, "none") == (found.value, found.definition.direction)
    assert (0.0, 0.5, 0.0, 0.0) == found.series["cache_share"]
    assert (0.0, 1.0, 0.0, 0.0) == found.series["block:first"]
    assert (0.0, 0.0, 0.0, 0.0) == found.series["block:second"]
    assert 0.0 == share(state).value


def test_full_precision_has_no_temporal_error(make_inputs):
    """The reference cell is not compared with itself."""
    assert Temporal().evaluate(make_inputs()) == ()
