"""What this machine's int8 kernels do, tried on known sums and not read from its flags.

Settings such as `ONEDNN_MAX_CPU_ISA` take away what a processor has. This is tried once a process;
what depends on a layer's shape is tried for each, see `proofs`.
"""

from __future__ import annotations

import functools

import torch

from tfq_bench_cpu import onednn

__all__ = ["EXACT_WEIGHT", "TERMS", "largest_sum", "saturates"]

EXACT_WEIGHT = 64
"""The largest magnitude of a weight at which two products with 255 fit 16 bits."""

TERMS = 64
"""Products of a trial sum: one full vector of 64 bytes."""

POINT = onednn.Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)


def largest_sum(weight: int) -> float:
    """Of 64 products of 255 and `weight`: of both kernels' sums the one further from the truth."""
    code = torch.full((1, TERMS, 1, 1), 255, dtype=torch.uint8)
    weights = torch.full((1, TERMS, 1, 1), weight, dtype=torch.int8)
    one = torch.ones(1)
    conv, flat = onednn.pack_conv2d(weights, POINT), onednn.pack_linear(weights.flatten(1))
    sums = (
        onednn.conv2d(code, 1.0, 0, conv, one, None, POINT).item(),
        onednn.linear(code.flatten(1), 1.0, 0, flat, one, None).item(),
    )
    return max(sums, key=lambda found: abs(found - TERMS * 255 * weight))


@functools.cache
def saturates() -> bool:
    """Whether this machine loses sums of full 8-bit weights."""
    return any(largest_sum(weight) != TERMS * 255 * weight for weight in (127, -128))
