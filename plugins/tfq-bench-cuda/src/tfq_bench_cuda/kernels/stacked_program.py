"""The Triton kernel of `stacked`, and its launch. Imported only where it runs."""

# No `from __future__ import annotations`: Triton reads the annotations of its programs.
# ruff: noqa: ANN001, ANN201, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor

from tfq_bench_cuda.kernels.norm_programs import code
from tfq_bench_cuda.kernels.stacked_reference import Stack

__all__ = ["launch", "stacked"]

OUTPUTS, DEPTH, WARPS, STAGES = 64, 128, 4, 4
"""Outputs of a program and inputs at a time: 8 KB of weights, of which three are on their way."""


@triton.jit
def _codes(
    x, row, channel, inside, inverse, zero_point,
    CHANNELS: tl.constexpr, BITS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """int8 of some channels of rows; any code where a channel is none, whose weight is 0."""
    known = inside[:, None] & (channel < CHANNELS)[None, :]
    value = tl.load(x + row[:, None] * CHANNELS + channel[None, :], mask=known, other=0.0)
    y = value.to(tl.float32)
    if SILU:
        y = (y / (1.0 + tl.exp(-y))).to(value.dtype).to(tl.float32)
    return code(y, inverse, zero_point, BITS)


@triton.jit(do_not_specialize=["rows", "last"])
def stacked(
    x, weight, sums, weight_scale, bias, step, scale, inverse, zero_point, last, y, rows,
    N: tl.constexpr, K: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr,
    SHARED: tl.constexpr, PACKED: tl.constexpr, SILU: tl.constexpr, PIECES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """`BN` outputs of `BM` rows of one layer; each program quantizes the rows for itself.

    A group of 32 packed weights is 16 bytes, low halves before high ones: both are multiplied by
    the codes that belong to them.
    """
    layer = tl.program_id(1)
    output = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(2) * BM + tl.arange(0, BM)
    inside, exists = row < rows, output < N
    place = layer * (last + 1) + tl.minimum(tl.load(step), last).to(tl.int32)
    turn = tl.load(inverse + place)
    zero = tl.load(zero_point + place) - 128
    moved = zero.to(tl.float32)
    if not SHARED:
        x += layer.to(tl.int64) * rows * CHANNELS
    total = tl.zeros([BM, BN], tl.int32)
    if PACKED:
        weight += layer.to(tl.int64) * N * (K // 2)
        byte = tl.arange(0, BK // 2)
        low = byte // 16 * 32 + byte % 16
        for start in range(0, K, BK):
            places = weight + output[:, None] * (K // 2) + (start // 2 + byte)[None, :]
            known = exists[:, None]
            if K % BK != 0:
                known = known & (start // 2 + byte < K // 2)[None, :]
            both = tl.load(places, mask=known, other=0)
            # An arithmetic shift brings the sign along.
            lower = ((both << 4).to(tl.int8, bitcast=True) >> 4).trans(1, 0)
            upper = (both.to(tl.int8, bitcast=True) >> 4).trans(1, 0)
            here = _codes(x, row, start + low, inside, turn, moved, CHANNELS, BITS, SILU)
            total = tl.dot(here, lower, total, out_dtype=tl.int32)
            here = _codes(x, row, start + low + 16, inside, turn, moved, CHANNELS, BITS, SILU)
            total = tl.dot(here, upper, total, out_dtype=tl.int32)
    else:
        weight += layer.to(tl.int64) * N * K
        inner = tl.arange(0, BK)
        for start in range(0, K, BK):
            places = weight + output[:, None] * K + (start + inner)[None, :]
            known = exists[:, None]
            if K % BK != 0:
                known = known & (start + inner < K)[None, :]
            part = tl.load(places, mask=known, other=0).trans(1, 0)
            here = _codes(x, row, start + inner, inside, turn, moved, CHANNELS, BITS, SILU)
            total = tl.dot(here, part, total, out_dtype=tl.int32)
    at = layer * N + output
    total -= zero * tl.load(sums + at, mask=exists, other=0)[None, :]
    found = total.to(tl.float32) * tl.load(scale + place)
    found = found * tl.load(weight_scale + at, mask=exists, other=0.0)[None, :]
    found = found + tl.load(bias + at, mask=exists, other=0.0)[None, :]
    WIDTH: tl.constexpr = N // PIECES
    begin = ((layer * PIECES + output // WIDTH).to(tl.int64) * rows)[None, :] + row[:, None]
    places = y + begin * WIDTH + (output % WIDTH)[None, :]
    tl.store(places, found.to(y.dtype.element_ty), mask=inside[:, None] & exists[None, :])


def launch(
    x: Tensor, stack: Stack, step: Tensor, *, silu: bool, out: torch.dtype, pieces: int
) -> Tensor:
    """See `stacked.stacked_linear`."""
    (layers, n), rows = stack.sums.shape, x.shape[1]
    y = torch.empty((layers, pieces, rows, n // pieces), dtype=out, device=x.device)
    height = 16 if rows <= 16 else 64
    grid = (triton.cdiv(n, OUTPUTS), layers, triton.cdiv(rows, height))
    stacked[grid](
        x, stack.weight, stack.sums, stack.weight_scale, stack.bias,
        step, stack.scale, stack.inverse, stack.zero_point, stack.scale.shape[1] - 1, y, rows,
        N=n, K=stack.k, CHANNELS=stack.channels, BITS=stack.bits,
        SHARED=len(x) == 1, PACKED=stack.packed, SILU=silu, PIECES=pieces,
        BM=height, BN=OUTPUTS, BK=DEPTH if stack.k % DEPTH == 0 else DEPTH // 2,
        num_warps=WARPS, num_stages=STAGES, enable_fp_fusion=False,
    )  # fmt: skip
    return y
