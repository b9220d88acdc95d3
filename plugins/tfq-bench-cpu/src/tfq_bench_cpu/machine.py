"""Whether this machine multiplies bytes exactly.

Before VNNI, x86 adds pairs of u8*s8 products in 16 bits and saturates: 255*127 + 255*127 = 64,770
becomes 32,767. So the instruction set is checked by name, for a clear message, and the kernels
are then tried on the worst case, because settings such as `ONEDNN_MAX_CPU_ISA` can take away what
the processor has.
"""

from __future__ import annotations

import platform
import warnings
from pathlib import Path

import torch

from tfq_bench.api import LoweringError
from tfq_bench_cpu import kernels

__all__ = ["NEEDED", "check_machine", "instruction_sets"]

NEEDED = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Any of these adds u8*s8 products in 32 bits; named as the Linux kernel names them."""

_SHOWN = ("avx2", "avx512f", *NEEDED)
_CPUINFO = Path("/proc/cpuinfo")
_OPS = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")


def instruction_sets(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """The processor's flags as Linux lists them; on other systems what torch knows of it."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
        return frozenset()
    found = {"avx2"} if torch.cpu._is_avx2_supported() else set()
    if torch.cpu._is_avx512_supported():
        found.add("avx512f")
    if torch.cpu._is_vnni_supported():
        found.add("avx512_vnni")
    return frozenset(found)


def check_machine(device: str) -> None:
    """Returns when the int8 kernels are there and exact.

    Raises:
        LoweringError: for another device, another architecture, a processor without VNNI or AMX,
            a torch build without oneDNN, or kernels that saturate.
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
    found = instruction_sets()
    if found.isdisjoint(NEEDED):
        listing = ", ".join(name for name in _SHOWN if name in found) or "none of " + ", ".join(
            _SHOWN
        )
        raise LoweringError(
            f"backend 'cpu' needs one of the instruction sets {', '.join(NEEDED)}, because without "
            f"them int8 sums saturate at 16 bits; this processor has {listing}. Use backend "
            "'simulate' on this machine."
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
    if (reached := _largest_sum()) != (expected := _PROBE * 255 * 127):
        raise LoweringError(
            f"the int8 kernels of torch {torch.__version__} are not exact here: a sum of "
            f"{expected} came out as {reached:.0f}; unset ONEDNN_MAX_CPU_ISA if "
            "it is set, else use backend 'simulate'."
        )


_PROBE = 64  # channels of the trial: one full vector of 64 bytes


def _largest_sum() -> float:
    """The smaller result of both kernels for 64 products of 255 and 127."""
    with warnings.catch_warnings():
        # Torch announces once per process that quantized dtypes will leave in a later release.
        # Nobody who runs a benchmark can act on that; above it says when it has happened.
        warnings.simplefilter("ignore", UserWarning)
        code = kernels.quantize(torch.full((1, _PROBE, 1, 1), 255.0), 1.0, 0, 8)
    one = torch.ones(1)
    weight = torch.full((1, _PROBE, 1, 1), 127, dtype=torch.int8)
    geometry = kernels.Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    packed = kernels.pack_conv2d(weight, geometry)
    conv = kernels.conv2d(code, 1.0, 0, packed, one, None, geometry)
    packed = kernels.pack_linear(weight.flatten(1))
    linear = kernels.linear(code.flatten(1), 1.0, 0, packed, one, None)
    return min(conv.item(), linear.item())
