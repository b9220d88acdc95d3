"""Attention on 8-bit tensor cores in Triton: the program that attends to prepared keys.

    m     running maximum of a row's logits, all to base 2     p     exp2(logit - m)
    mass  running sum of p                                     r     exp2(old m - new m)

After SageAttention (Zhang et al., arXiv:2410.02367, equations 4 and 5; 2411.10958). Softmax does
not change when the same vector is taken off every key; without what the keys have in common they
fit into 8 bits. A row of queries has a scale of its own, a block of keys has one: both end in the
factor that turns a sum into a logit. An element then costs a conversion, a multiply-add, an `exp2`,
an addition, half a conversion, and a maximum. At 64 channels this limits a Hopper card: its
schedulers issue one instruction a clock and `exp2` every eighth, while the products run beside.

**No maximum where none is needed** (after FlashDecoding++, arXiv:2311.01282): |q||k| bounds a
logit. Where the largest bound of a block of queries is so small that no `p` can leave float32, m is
constant and neither maximum nor correction is computed. Each thread block decides that.

Imports Triton, so only `tfq_bench_cuda.kernels.attention` imports this, when it launches.
"""

# ruff: noqa: ANN001, ANN201, ANN202 (Triton's operands have no annotations)

from __future__ import annotations

import triton
import triton.language as tl

from tfq_bench_cuda.kernels.attention_key_programs import FLOOR, permuted, rounded

__all__ = ["attend"]

_P_BITS: tl.constexpr = tl.constexpr(8.0)
"""p reaches 2^8 before it becomes e4m3, whose largest value is 448 and smallest 2^-9."""

_BOUND: tl.constexpr = tl.constexpr(90.0)
_HIGHEST: tl.constexpr = tl.constexpr(60.0)
"""With |logit| <= bound <= 90, p = exp2(logit - bound + 60) lies in [2^-120, 2^60]: normal in
float32 and bfloat16, and far from overflow when it is summed over tokens."""

_LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
_LOWEST: tl.constexpr = tl.constexpr(-1e30)


@triton.jit
def _tile(x, x_token, token, channel, length, D: tl.constexpr, MASKED: tl.constexpr):
    """`[tokens, channels]` of a head; MASKED: some are outside, which are zeros."""
    places = x + token[:, None] * x_token + channel[None, :]
    if MASKED:
        inside = (token < length)[:, None] & (channel < D)[None, :]
        return tl.load(places, mask=inside, other=0.0)
    return tl.load(places)


@triton.jit
def _block(
    start,
    q,
    q_rest,
    factor,
    k,
    k_token,
    k_scale,
    v,
    v_token,
    v_scale,
    mask,
    length,
    moving,
    m,
    mass,
    unit,
    total,
    total_rest,
    D: tl.constexpr,
    N: tl.constexpr,
    REST: tl.constexpr,
    QK8: tl.constexpr,
    PV8: tl.constexpr,
    MASK: tl.constexpr,
    TAIL: tl.constexpr,
):
    """m, mass, unit and totals after the keys and values [start, start + N).

    `total` `[M, FIRST]` and `total_rest` `[M, REST]` are in units of the last block's v_scale.
    """
    M: tl.constexpr = total.shape[0]
    FIRST: tl.constexpr = total.shape[1]
    first = tl.arange(0, FIRST)
    rest = FIRST + tl.arange(0, REST if REST > 0 else 1)
    token = start + tl.arange(0, N)
    # The codes of keys are padded with zeros.
    outside: tl.constexpr = not QK8 and (TAIL or D < FIRST)
    outside_rest: tl.constexpr = not QK8 and (TAIL or D < FIRST + REST)
    keys = _tile(k, k_token, token, first, length, D, outside)
    sums = tl.dot(q, tl.trans(keys), out_dtype=tl.int32 if QK8 else tl.float32)
    if REST > 0:
        keys = _tile(k, k_token, token, rest, length, D, outside_rest)
        sums = tl.dot(q_rest, tl.trans(keys), sums, out_dtype=tl.int32 if QK8 else tl.float32)
    if QK8:
        sums = sums.to(tl.float32)
        factor = factor * tl.load(k_scale + start // N)
    if MASK:
        # The logits themselves; not below what leaves a running maximum finite.
        added = tl.load(mask + token, mask=token < length, other=0.0).to(tl.float32)
        sums = sums * factor[:, None] + tl.maximum(added * _LOG2E, _LOWEST)[None, :]
        factor = tl.full((M,), 1.0, tl.float32)
    if TAIL:
        sums = tl.where((token < length)[None, :], sums, float("-inf"))
    if PV8:
        top = tl.maximum(m, tl.max(sums, 1) * factor - _P_BITS)
        r = tl.exp2(m - top)
        mass *= r
        m = top
    elif moving:
        top = tl.maximum(m, tl.max(sums, 1) * factor)
        r = tl.exp2(m - top)
        mass *= r
        total *= r[:, None]
        if REST > 0:
            total_rest *= r[:, None]
        m = top
    p = tl.exp2(sums * factor[:, None] - m[:, None])
    mass += tl.sum(p, 1)
    if PV8:
        p8 = permuted(p.to(tl.float8e4nv), M, N)
        next_unit = tl.load(v_scale + start // N)
        r *= unit / next_unit
        unit = next_unit
        values = tl.load(v + first[:, None] * v_token + token[None, :])
        total = total * r[:, None] + tl.dot(p8, tl.trans(values))
        if REST > 0:
            values = tl.load(v + rest[:, None] * v_token + token[None, :])
            total_rest = total_rest * r[:, None] + tl.dot(p8, tl.trans(values))
    else:
        values = _tile(v, v_token, token, first, length, D, TAIL or D < FIRST)
        p16 = p.to(values.dtype)
        total = tl.dot(p16, values, total)
        if REST > 0:
            values = _tile(v, v_token, token, rest, length, D, TAIL or D < FIRST + REST)
            total_rest = tl.dot(p16, values, total_rest)
    return m, mass, unit, total, total_rest


@triton.jit
def _finish(
    y,
    out,
    out_token,
    row,
    channel,
    queries,
    inverse,
    zero_point,
    step,
    last_step,
    D: tl.constexpr,
    LAST: tl.constexpr,
):
    """Stores `y` `[M, channels]`, or its codes."""
    if LAST > 0:
        at = tl.minimum(tl.load(step), last_step)
        code = rounded(y * tl.load(inverse + at)) + tl.load(zero_point + at).to(tl.float32)
        y = tl.minimum(tl.maximum(code, 0.0), LAST) - 128.0
    inside = (row < queries)[:, None] & (channel < D)[None, :]
    place = out + row[:, None] * out_token + channel[None, :]
    tl.store(place, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["last_step", "heads", "queries", "length", "blocks"])
def attend(
    q,
    q_batch,
    q_head,
    q_token,
    k,
    k_batch,
    k_head,
    k_token,
    k_scale,
    k_norm,
    v,
    v_batch,
    v_head,
    v_token,
    v_scale,
    mask,
    mask_batch,
    q8,
    out,
    out_batch,
    out_token,
    inverse,
    zero_point,
    step,
    last_step,
    heads,
    queries,
    length,
    blocks,
    scale,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    UNIT: tl.constexpr,
    QK8: tl.constexpr,
    PV8: tl.constexpr,
    MASK: tl.constexpr,
    EVEN: tl.constexpr,
    BOUNDS: tl.constexpr,
    LAST: tl.constexpr,
):
    """M queries of one head, against all keys in `blocks` blocks of N.

    Args:
        scale: of the logits, times log2(e).
        D, WIDTH: channels of a head, and the power of two that they fit into.
        FIRST, REST: channels of a product and of another after it, powers of two, or REST 0.
        UNIT: what the strides of 16-bit operands are given in, so that their alignment is known.
        QK8, PV8: whether the first and the second product take the 8-bit operands.
        MASK: whether `mask` `[B, length]` is added to the logits of 16-bit keys.
        q8: int8 `[B, H, queries, FIRST + REST]`, room for the queries' codes.
        EVEN: whether `length` is a multiple of N.
        BOUNDS: whether to look for blocks of queries that need no maximum.
        last_step: of the codes' tables; its entry stands for all later steps.
        LAST: 0: `out` is in the queries' dtype. Else int8: codes up to LAST, less 128.
    """
    pair = tl.program_id(1).to(tl.int64)
    batch = pair // heads
    head = pair % heads
    row = tl.program_id(0) * M + tl.arange(0, M)
    first = tl.arange(0, FIRST)
    rest = FIRST + tl.arange(0, REST if REST > 0 else 1)
    q += (batch * q_batch + head * q_head) * UNIT
    q_token *= UNIT
    if QK8:
        k_token = FIRST + REST
        k += pair * blocks * N * (FIRST + REST)
        k_scale += pair * blocks
        k_norm += pair * blocks
    else:
        k_token *= UNIT
        k += (batch * k_batch + head * k_head) * UNIT
    if PV8:
        v_token = blocks * N
        v += pair * (FIRST + REST) * (blocks * N)
        v_scale += pair * blocks
    else:
        v_token *= UNIT
        v += (batch * v_batch + head * v_head) * UNIT

    if MASK:
        mask += batch * mask_batch
    factor = tl.full((M,), 1.0, tl.float32) * scale
    if QK8:
        y = _tile(q, q_token, row, tl.arange(0, WIDTH), queries, D, True).to(tl.float32)
        amax = tl.maximum(tl.max(tl.abs(y), 1), FLOOR)
        y = rounded(y * (127.0 / amax)[:, None])
        factor = amax / 127.0 * scale
        # Triton keeps a computed operand in registers, and then the assembler makes every product
        # wait for the last; a loaded one lies in shared memory. So the codes go through L2.
        q = q8 + pair * queries * (FIRST + REST)
        q_token = FIRST + REST
        channel = tl.arange(0, WIDTH)
        place = q + row[:, None] * q_token + channel[None, :]
        tl.store(place, y.to(tl.int8), mask=(row < queries)[:, None] & (channel < D)[None, :])
        tl.debug_barrier()
    x = _tile(q, q_token, row, first, queries, D, True)
    x_rest = x
    if REST > 0:
        x_rest = _tile(q, q_token, row, rest, queries, D, True)

    m = tl.full((M,), float("-inf"), tl.float32)
    mass = tl.zeros((M,), tl.float32)
    total = tl.zeros((M, FIRST), tl.float32)
    total_rest = tl.zeros((M, REST), tl.float32) if REST > 0 else 0.0
    unit = 1.0
    moving = True
    if BOUNDS:
        norm = 0.0
        for begin in tl.range(0, blocks, 128):
            one = begin + tl.arange(0, 128)
            norm = tl.maximum(norm, tl.max(tl.load(k_norm + one, mask=one < blocks, other=0.0), 0))
        bound = tl.sqrt(tl.sum(y * y, 1)) * factor * norm
        moving = tl.max(bound, 0) > _BOUND
        m = tl.where(moving, m, bound - _HIGHEST)
    whole = length // N * N
    for start in tl.range(0, whole, N):
        m, mass, unit, total, total_rest = _block(
            start, x, x_rest, factor, k, k_token, k_scale, v, v_token, v_scale, mask, length,
            moving, m, mass, unit, total, total_rest, D, N, REST, QK8, PV8, MASK, False,
        )  # fmt: skip
    if not EVEN:
        m, mass, unit, total, total_rest = _block(
            whole, x, x_rest, factor, k, k_token, k_scale, v, v_token, v_scale, mask, length,
            moving, m, mass, unit, total, total_rest, D, N, REST, QK8, PV8, MASK, True,
        )  # fmt: skip

    r = (unit / mass)[:, None]
    out += batch * out_batch + head * D
    _finish(
        total * r, out, out_token, row, first, queries, inverse, zero_point, step, last_step,
        D, LAST,
    )  # fmt: skip
    if REST > 0:
        _finish(
            total_rest * r, out, out_token, row, rest, queries, inverse, zero_point, step,
            last_step, D, LAST,
        )  # fmt: skip
