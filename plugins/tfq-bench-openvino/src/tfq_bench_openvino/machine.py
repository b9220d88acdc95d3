"""Whether this machine's engine multiplies bytes exactly: the worst sums are tried."""

from __future__ import annotations

import functools
import platform

import torch

from tfq_bench.api import LoweringError
from tfq_bench_openvino.operands import EXACT_WEIGHT
from tfq_bench_openvino.runtime import openvino
from tfq_bench_openvino.trials import executed_precision, largest_sum

__all__ = ["check_machine"]


def check_machine(device: str, *, precision: str = "f32") -> None:
    """Returns when the engine has int8 products and they are exact, and computes in `precision`.

    Raises:
        LoweringError: for another device, another architecture, products that lose sums of
            weights of 7 bits, or a precision that the processor lacks.
    """
    if torch.device(device).type != "cpu":
        raise LoweringError(
            f"backend 'openvino' runs on device 'cpu', found '{device}'; "
            "set the suite's device to 'cpu' or choose another backend."
        )
    architecture = platform.machine()
    if architecture.lower() not in ("x86_64", "amd64"):
        raise LoweringError(
            f"backend 'openvino' needs an x86-64 processor, found '{architecture}'; "
            "use backend 'simulate' on this machine."
        )
    for weight in (EXACT_WEIGHT, -EXACT_WEIGHT):
        expected, found = _tried(weight)
        if expected != found:
            what = "was multiplied in float" if found != found else f"came out as {found:.0f}"
            raise LoweringError(
                f"the int8 products of OpenVINO {openvino.__version__} are not exact here: a sum "
                f"of {expected} {what}; unset ONEDNN_MAX_CPU_ISA if it is set, else use backend "
                "'simulate'."
            )
    found = executed_precision(precision)
    if found != precision:
        raise LoweringError(
            f"backend 'openvino' was asked for the precision '{precision}', and OpenVINO computes "
            f"in '{found}' on this processor; bf16 needs AVX512-BF16 or AMX. Leave the option "
            "'precision' out.",
            expected=precision,
            found=found,
        )


@functools.cache
def _tried(weight: int) -> tuple[int, float]:
    return largest_sum(weight)
