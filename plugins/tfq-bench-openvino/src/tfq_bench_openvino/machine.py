"""Whether this machine's engine multiplies bytes exactly: the worst sums are tried."""

from __future__ import annotations

import functools
import platform

import torch

from tfq_bench.api import LoweringError
from tfq_bench_openvino.operands import EXACT_WEIGHT
from tfq_bench_openvino.runtime import openvino
from tfq_bench_openvino.trials import largest_sum

__all__ = ["check_machine"]


def check_machine(device: str) -> None:
    """Returns when the engine has int8 products and they are exact.

    Raises:
        LoweringError: for another device, another architecture, or products that lose sums of
            weights of 7 bits.
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


@functools.cache
def _tried(weight: int) -> tuple[int, float]:
    return largest_sum(weight)
