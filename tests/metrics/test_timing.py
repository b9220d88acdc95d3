"""Timings as published."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tfq_bench.metrics.timing import Timing

MEASURED = {
    "latency_ms": [2.0, 4.0, 3.0],
    "reference_latency_ms": [8.0, 8.0, 9.0],
    "batch": 6,
    "threads": 2,
    "peak_memory_bytes": 1000,
}


def _values(inputs):
    return {value.definition.name: value for value in Timing().evaluate(inputs)}


def _stages(execution):
    return {
        "lower": {"execution": execution},
        "measure": MEASURED,
    }


def test_medians_over_rounds_and_ratios_within_rounds(make_inputs):
    """The speed-up is the median of each round's ratio, not the ratio of medians."""
    found = _values(make_inputs(stages=_stages("lowered")))
    assert pytest.approx({name: value.value for name, value in found.items()}) == {
        "latency-ms": 3.0,
        "throughput-images-per-s": 2000.0,
        "speedup-vs-fp32-eager": 3.0,
        "peak-memory-bytes": 1000,
    }
    speed = found["speedup-vs-fp32-eager"]
    assert (speed.interval.low, speed.interval.high, speed.n) == (2.0, 4.0, 3)
    assert all(value.definition.volatile for value in found.values())


def test_the_speed_up_says_what_the_reference_computes_in(make_inputs):
    """A model in bfloat16 is its own reference; nobody may take its speed-up for one over FP32."""
    inputs = make_inputs(stages=_stages("lowered"))
    model = copy.copy(inputs.loaded.model)
    model.dtype = torch.bfloat16
    found = _values(replace(inputs, loaded=replace(inputs.loaded, model=model)))
    assert "speedup-vs-fp32-eager" not in found
    assert 3.0 == pytest.approx(found["speedup-vs-bf16-eager"].value)
    assert "BF16 eager latency" in found["speedup-vs-bf16-eager"].definition.summary
    assert set(found) < set(Timing.names)


def test_simulated_cells_publish_no_speed(make_inputs):
    """Simulation is slower by construction; its latency would be read as the method's."""
    assert {} == _values(make_inputs(stages=_stages("simulated")))


def test_cell_that_was_not_timed_has_no_timings(make_inputs):
    """Without a measure stage nothing is invented."""
    assert Timing().evaluate(make_inputs()) == ()
