"""What a method took, from the facts of its stages."""

from __future__ import annotations

import pytest

from tfq_bench.metrics.cost import Cost

CALIBRATE = {"seconds": 2.0, "peak_memory_bytes": 500, "network_calls": 10, "samples": 4}
QUANTIZE = {"seconds": 1.5, "peak_memory_bytes": 300, "network_calls": 7}


def _values(inputs):
    return {value.definition.name: value.value for value in Cost().evaluate(inputs)}


def test_seconds_and_calls_add_up_and_memory_does_not(make_inputs):
    """Capture and quantization follow each other: memory is the larger of both."""
    inputs = make_inputs(
        reference_cell="fp-cell", stages={"calibrate": CALIBRATE, "quantize": QUANTIZE}
    )
    assert _values(inputs) == {
        "calibration-seconds": 3.5,
        "calibration-peak-bytes": 500,
        "calibration-network-calls": 17,
    }
    assert all(value.definition.volatile for value in Cost().evaluate(inputs))


def test_method_without_data_has_the_cost_of_quantizing(make_inputs):
    """A method that calibrates on nothing has no calibrate stage."""
    inputs = make_inputs(reference_cell="fp-cell", stages={"quantize": QUANTIZE})
    assert pytest.approx(1.5) == _values(inputs)["calibration-seconds"]


def test_full_precision_costs_nothing(make_inputs):
    """Zeros would stand beside methods as if one had been run."""
    assert _values(make_inputs(stages={"quantize": QUANTIZE})) == {}


def test_what_a_stage_did_not_note_is_left_out(make_inputs):
    """Facts of an older run without memory give no memory rather than half of it."""
    old = {"seconds": 2.0, "network_calls": 10}
    inputs = make_inputs(reference_cell="fp-cell", stages={"calibrate": old, "quantize": QUANTIZE})
    assert {"calibration-seconds", "calibration-network-calls"} == set(_values(inputs))
