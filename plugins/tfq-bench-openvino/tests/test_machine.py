"""What a machine without exact int8 products is told."""

from __future__ import annotations

import pytest

from tfq_bench.api import LoweringError
from tfq_bench_openvino import backend, machine, trials
from tfq_bench_openvino.backend import OpenVinoBackend


def test_other_architecture_is_refused(monkeypatch):
    """An ARM machine is told that the products are for x86-64."""
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    with pytest.raises(LoweringError, match="x86-64 processor, found 'aarch64'"):
        machine.check_machine("cpu")


def test_other_device_is_refused():
    """The backend does not move a network off the device that was asked for."""
    with pytest.raises(LoweringError, match="found 'cuda'"):
        machine.check_machine("cuda")


@pytest.mark.parametrize(
    ("found", "words"),
    [(16384.0, "of 1044480 came out as 16384"), (float("nan"), "was multiplied in float")],
)
def test_products_that_are_not_exact_are_refused(monkeypatch, found, words):
    """Whatever the processor is called: lost sums, or an engine that takes floats for bytes."""
    monkeypatch.setattr(machine, "_tried", lambda _: (1044480, found))
    with pytest.raises(LoweringError, match=words):
        machine.check_machine("cpu")


def test_this_machine_passes():
    """The tests run where weights of 7 bits are exact."""
    machine.check_machine("cpu")


def test_saturation_is_what_the_sums_say():
    """Full 8-bit weights are exact here, or the largest sum of them is lost."""
    expected, found = trials.largest_sum(127)
    assert trials.saturates() == (expected != found)


def test_a_precision_that_the_processor_lacks_is_refused(monkeypatch):
    """The engine would take the hint and compute in float32."""
    monkeypatch.setattr(machine, "executed_precision", lambda _: "f32")
    machine.check_machine("cpu", precision="f32")
    with pytest.raises(LoweringError, match="OpenVINO computes in 'f32' on this processor"):
        machine.check_machine("cpu", precision="bf16")


def test_float_products_are_what_the_engine_says():
    """float32 everywhere; bfloat16 where the processor has it."""
    assert trials.executed_precision("f32") == "f32"
    assert trials.executed_precision("bf16") in ("f32", "bf16")


@pytest.mark.parametrize(
    ("saturates", "told"), [(False, "every width in one product"), (True, "in two products")]
)
def test_it_says_which_products_are_exact(monkeypatch, saturates, told):
    """For `tfq-bench doctor`: what 8-bit weights cost depends on the processor."""
    monkeypatch.setattr(backend, "saturates", lambda: saturates)
    said = OpenVinoBackend().exactness(device="cpu")
    assert said.startswith("int8 sums exact, ")
    assert told in said
