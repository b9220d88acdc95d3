"""Whether this machine multiplies bytes exactly: the worst sums of `kernels` are tried."""

from __future__ import annotations

import platform

import torch

from tfq_bench.api import LoweringError
from tfq_bench_cpu.trials import EXACT_WEIGHT, TERMS, largest_sum

__all__ = ["check_machine"]

_OPS = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")


def check_machine(device: str) -> None:
    """Returns when the int8 kernels are there and exact.

    Raises:
        LoweringError: for another device, another architecture, a torch build without oneDNN, or
            kernels that lose sums of weights of 7 bits.
    """
    if torch.device(device).type != "cpu":
        raise LoweringError(
            f"backend 'cpu' runs on device 'cpu', found '{device}'; "
            "set the suite's device to 'cpu' or choose another backend."
        )
    architecture = platform.machine()
    if architecture.lower() not in ("x86_64", "amd64"):
        raise LoweringError(
            f"backend 'cpu' needs an x86-64 processor, found '{architecture}'; "
            "use backend 'simulate' on this machine."
        )
    missing = [f"onednn::{name}" for name in _OPS if not hasattr(torch.ops.onednn, name)]
    if not hasattr(torch, "quantize_per_tensor"):
        missing.append("quantize_per_tensor")
    if not torch._C._has_mkldnn or missing:
        raise LoweringError(
            "backend 'cpu' needs torch's oneDNN int8 operators, but torch "
            f"{torch.__version__} lacks {', '.join(missing) or 'oneDNN'}; install an official "
            "x86 wheel of torch 2.11 to 2.14."
        )
    for weight in (EXACT_WEIGHT, -EXACT_WEIGHT):
        expected = TERMS * 255 * weight
        if (reached := largest_sum(weight)) != expected:
            raise LoweringError(
                f"the int8 kernels of torch {torch.__version__} are not exact here: a sum of "
                f"{expected} came out as {reached:.0f}; unset ONEDNN_MAX_CPU_ISA if "
                "it is set, else use backend 'simulate'."
            )
