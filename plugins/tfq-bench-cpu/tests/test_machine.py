"""What a machine without exact int8 kernels is told."""

from __future__ import annotations

import pytest

from tfq_bench.api import LoweringError
from tfq_bench_cpu import machine


def with_flags(monkeypatch, flags: str) -> None:
    """Lets the processor have these flags."""
    monkeypatch.setattr(machine, "instruction_sets", lambda: frozenset(flags.split()))


def test_flags_are_read_from_cpuinfo(tmp_path):
    """The first `flags` line is split into names."""
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\n")
    assert frozenset({"fpu", "avx2", "avx512_vnni"}) == machine.instruction_sets(path)


def test_processor_without_vnni_is_told_what_it_has_and_needs(monkeypatch):
    """The message names the needed sets, the found ones and the way out."""
    with_flags(monkeypatch, "fpu avx2 avx512f")
    with pytest.raises(LoweringError) as caught:
        machine.check_machine("cpu")
    message = str(caught.value)
    assert "avx512_vnni, avx_vnni, amx_int8" in message
    assert "this processor has avx2, avx512f" in message
    assert "simulate" in message


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
    with_flags(monkeypatch, "avx2 avx512_vnni")
    monkeypatch.setattr(machine, "_OPS", ("qconv2d_of_another_torch",))
    with pytest.raises(LoweringError, match=r"lacks onednn::qconv2d_of_another_torch"):
        machine.check_machine("cpu")


def test_saturating_kernels_are_refused(monkeypatch):
    """Kernels that lose high sums are refused although the processor has the instructions."""
    with_flags(monkeypatch, "avx2 avx512_vnni")
    monkeypatch.setattr(machine, "_largest_sum", lambda: 32767.0 * 32)
    with pytest.raises(LoweringError, match="not exact here: a sum of 2072640 came out as 1048544"):
        machine.check_machine("cpu")


def test_this_machine_passes():
    """The tests run where the kernels are exact."""
    machine.check_machine("cpu")
