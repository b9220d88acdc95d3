"""Where the GPU's time goes in one call, by kind of kernel."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

GROUPS = {
    "int8 convolution": r"s8_conv2d",
    "int8 linear": r"s8_linear",
    "weights unpacked": r"unpack",
    "attention": r"sdpa|flash|fmha|attend|quantize_keys|attention|softmax",
    "norm and quantize": r"group_moments|group_codes|layer_codes|group_?norm|layer_?norm|Rowwise"
    r"Moments|ComputeFusedParams|GroupNorm|LayerNorm",
    "rows quantized": r"plain_codes|s8_quantize",
    "float products": r"gemm|gemv|cutlass|cudnn|nvjet|xmma|implicit_convolve|splitKreduce|convolve",
    "copies": r"Memcpy|Memset|copy|CatArray|nchwToNhwc|nhwcToNchw|transpose",
    "elementwise": r"elementwise|upsample|reduce|index|gather|arange|triton_",
}
"""Regular expression of the kernels' names, any case; the first that is found counts."""

OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """One kernel in one call.

    Args:
        us: microseconds of all its launches together.
    """

    name: str
    launches: int
    us: float


def group_of(name: str) -> str:
    """The group of a kernel's name."""
    found = (group for group, text in GROUPS.items() if re.search(text, name, re.IGNORECASE))
    return next(found, OTHER)


def grouped(kernels: Iterable[KernelTime]) -> dict[str, list[KernelTime]]:
    """Kernels by group, groups and kernels with the longest time first."""
    groups: dict[str, list[KernelTime]] = defaultdict(list)
    for kernel in kernels:
        groups[group_of(kernel.name)].append(kernel)
    ranked = sorted(groups.items(), key=lambda item: -sum(kernel.us for kernel in item[1]))
    return {name: sorted(some, key=lambda kernel: -kernel.us) for name, some in ranked}


def profiled(run: Callable[[], object]) -> list[KernelTime]:
    """The kernels of one call, also of those in a replayed graph."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        run()
        torch.cuda.synchronize()
    return [
        KernelTime(name=event.key, launches=event.count, us=event.self_device_time_total)
        for event in profiler.key_averages()
        if event.device_type == DeviceType.CUDA
    ]


def lines(kernels: Iterable[KernelTime], *, most: int = 5) -> list[list[str]]:
    """Rows of a table: each group, and its `most` longest kernels below it."""
    groups = grouped(kernels)
    whole = sum(kernel.us for some in groups.values() for kernel in some)
    rows = []
    for group, some in groups.items():
        us = sum(kernel.us for kernel in some)
        count = sum(kernel.launches for kernel in some)
        rows.append([f"**{group}**", str(count), f"{us / 1e3:.3f}", f"{us / whole:.1%}"])
        rows += [
            [f"`{k.name[:90]}`", str(k.launches), f"{k.us / 1e3:.3f}", f"{k.us / whole:.1%}"]
            for k in some[:most]
        ]
    return rows
