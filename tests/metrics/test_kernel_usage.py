"""What the lower stage says about kernels."""

from __future__ import annotations

import pytest

from tfq_bench.metrics.kernel_usage import KernelUsage

USES = [
    {"layer": "a", "kernel": "int8", "wbits": 8, "abits": 8, "macs": 300, "fallback": None},
    {"layer": "b", "kernel": "fp32", "wbits": 8, "abits": 8, "macs": 500, "fallback": "no kernel"},
    {"layer": "c", "kernel": "mixed", "wbits": 4, "abits": 32, "macs": 50, "fallback": None},
]


def _lowered(**changes):
    facts = {"execution": "lowered", "kernels": USES, "executed": {"int8": 1}, "parity": None}
    return {"lower": {**facts, **changes}}


def test_only_low_bit_kernels_count_against_all_work(make_inputs, tiny):
    """Fallbacks and float activations are not low-bit, and unquantized layers are work too."""
    values = {
        value.definition.name: value
        for value in KernelUsage().evaluate(make_inputs(stages=_lowered()))
    }
    total = sum(layer.macs for layer in tiny.topology.layers)
    assert pytest.approx(300 / total) == values["mac-share-low-bit"].value
    assert values["fallback-layers"].value == 1.0
    assert values["mac-share-low-bit"].series == {"executed:int8": (1.0,)}
    assert "parity-rms" not in values


def test_parity_is_the_relative_difference(make_inputs):
    """The published parity is relative to the simulated output."""
    parity = {"max_abs": 0.5, "rms": 0.1, "relative": 0.02}
    found = KernelUsage().evaluate(make_inputs(stages=_lowered(parity=parity)))
    assert {value.definition.name: value.value for value in found}["parity-rms"] == 0.02


@pytest.mark.parametrize("execution", ["simulated", "full-precision"])
def test_cells_without_kernels_have_no_kernel_numbers(make_inputs, execution):
    """A simulated cell must not look as if it had run anything in integers."""
    assert KernelUsage().evaluate(make_inputs(stages=_lowered(execution=execution))) == ()
