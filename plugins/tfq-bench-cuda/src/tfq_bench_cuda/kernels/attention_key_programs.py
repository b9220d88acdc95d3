"""Keys and values of attention in 8 bits, in Triton: one launch before the products.

Imports Triton, so only `tfq_bench_cuda.kernels.attention` imports this, when it launches.
"""

# ruff: noqa: ANN001, ANN201 (Triton's operands have no annotations)

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["FLOOR", "permuted", "quantize_keys", "rounded"]

FLOOR: tl.constexpr = tl.constexpr(1e-20)
"""Smallest `amax`: a row or block of zeros has a finite inverse."""

_HALF_EVEN: tl.constexpr = tl.constexpr(12582912.0)
"""1.5 * 2^23: adding it leaves no fraction bits, so float32 rounds half to even."""


@triton.jit
def rounded(x):
    """Half to even, for |x| < 2^22; what is larger stays about as large."""
    return (x + _HALF_EVEN) - _HALF_EVEN


@triton.jit
def permuted(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """`[ROWS, COLUMNS]` with each 16 columns (j, lane, i) of sizes (2, 4, 2) as (lane, j, i).

    A thread then owns those columns of `p` that it must hand to an 8-bit product: no data moves.
    The tokens of the 8-bit values are permuted in the same way, so the product is the same.
    """
    groups = tl.reshape(x, (ROWS, COLUMNS // 16, 2, 4, 2))
    return tl.reshape(tl.permute(groups, (0, 1, 3, 2, 4)), (ROWS, COLUMNS))


@triton.jit(do_not_specialize=["heads", "length"])
def quantize_keys(
    k,
    k_batch,
    k_head,
    k_token,
    v,
    v_batch,
    v_head,
    v_token,
    k8,
    k_scale,
    k_norm,
    v8,
    v_scale,
    heads,
    length,
    padded,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    SAMPLE: tl.constexpr,
    VALUES: tl.constexpr,
):
    """One block of keys of one head: codes `[BLOCK, KEPT]` of `k - mean`, scale, largest norm.

    The mean is that of SAMPLE tokens, spread over the head by an odd step: any vector is allowed,
    and every block must take the same one.

    Args:
        padded: `length` rounded up to a multiple of BLOCK.
        WIDTH, KEPT: channels of the tile, a power of two, and of the result.
        UNIT: what the strides of k and v are given in, so that their alignment is known.
        VALUES: whether e4m3 of v, `[KEPT, BLOCK]` with permuted tokens, and its scale come too.
    """
    block = tl.program_id(0)
    pair = tl.program_id(1).to(tl.int64)
    batch = pair // heads
    head = pair % heads
    channel = tl.arange(0, WIDTH)
    token = block * BLOCK + tl.arange(0, BLOCK)
    inside = (token < length)[:, None] & (channel < D)[None, :]
    k += (batch * k_batch + head * k_head) * UNIT
    k_token *= UNIT
    v_token *= UNIT

    drawn = tl.arange(0, SAMPLE)
    step = (length // SAMPLE) | 1
    spread = (drawn * step) % length
    seen = (drawn < length)[:, None] & (channel < D)[None, :]
    sample = tl.load(k + spread[:, None] * k_token + channel[None, :], mask=seen, other=0.0)
    mean = tl.sum(sample.to(tl.float32), 0) / tl.minimum(length, SAMPLE)

    x = tl.load(k + token[:, None] * k_token + channel[None, :], mask=inside, other=0.0)
    x = tl.where(inside, x.to(tl.float32) - mean[None, :], 0.0)
    amax = tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), FLOOR)
    code = rounded(x * (127.0 / amax))
    norm = tl.sqrt(tl.max(tl.sum(code * code, 1), 0))
    place = pair * (padded // BLOCK) + block
    kept = channel < KEPT
    k8 += (pair * padded + token[:, None]) * KEPT + channel[None, :]
    tl.store(k8, code.to(tl.int8), mask=kept[None, :])
    tl.store(k_scale + place, amax / 127.0)
    tl.store(k_norm + place, norm * (amax / 127.0))

    if VALUES:
        v += (batch * v_batch + head * v_head) * UNIT
        y = tl.load(v + token[:, None] * v_token + channel[None, :], mask=inside, other=0.0)
        y = y.to(tl.float32)
        amax = tl.maximum(tl.max(tl.max(tl.abs(y), 1), 0), FLOOR)
        y = permuted(tl.trans(y * (448.0 / amax)), WIDTH, BLOCK).to(tl.float8e4nv)
        v8 += (pair * KEPT + channel[:, None]) * padded + token[None, :]
        tl.store(v8, y, mask=kept[:, None])
        tl.store(v_scale + place, amax / 448.0)
