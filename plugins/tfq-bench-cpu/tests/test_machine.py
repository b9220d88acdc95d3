"""What a machine without exact int8 kernels is told."""

from __future__ import annotations

import pytest

from tfq_bench.api import LoweringError
from tfq_bench_cpu import backend, machine
from tfq_bench_cpu.backend import CpuBackend


def test_other_architecture_is_refused(monkeypatch):
    """An ARM machine is told that the kernels are for x86-64."""
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    with pytest.raises(LoweringError, match="x86-64 processor, found 'aarch64'"):
        machine.check_machine("cpu")


def test_other_device_is_refused():
    """The backend does not move a network off the device that was asked for."""
    with pytest.raises(LoweringError, match="found 'cuda'"):
        machine.check_machine("cuda")


def test_torch_without_the_operators_is_refused(monkeypatch):
    """A missing operator is named before a layer needs it."""
    monkeypatch.setattr(machine, "_OPS", ("qconv2d_of_another_torch",))
    with pytest.raises(LoweringError, match=r"lacks onednn::qconv2d_of_another_torch"):
        machine.check_machine("cpu")


def test_saturating_kernels_are_refused(monkeypatch):
    """Kernels that lose sums even of weights of 7 bits are refused, whatever the processor is."""
    monkeypatch.setattr(machine, "largest_sum", lambda _: 16384.0)
    with pytest.raises(LoweringError, match="not exact here: a sum of 1044480 came out as 16384"):
        machine.check_machine("cpu")


def test_this_machine_passes():
    """The tests run where the kernels are exact."""
    machine.check_machine("cpu")


@pytest.mark.parametrize(
    ("saturates", "told"), [(False, "every width in one product"), (True, "up to two products")]
)
def test_it_says_which_kernels_are_exact(monkeypatch, saturates, told):
    """For `tfq-bench doctor`: what 8-bit weights cost depends on the processor."""
    monkeypatch.setattr(backend, "saturates", lambda: saturates)
    said = CpuBackend().exactness(device="cpu")
    assert said.startswith("int8 sums exact, ")
    assert told in said
