"""Attention with its first product, or both, on 8-bit tensor cores; the result may be int8 codes.

    logits = q (k - mean)^T * scale     q in int8 with a scale per token, k with one per block
    out    = softmax(logits) v          in 16 bit, or in e4m3 with a scale of v per block

A vector that is taken off every key changes no softmax; without it the keys fit into 8 bits
(SageAttention, arXiv:2410.02367). Keys and values are prepared by one launch, and only once where
they stay the same over sampler steps, as those of a prompt do: `prepare_keys`, then `attend`.

Nothing is read on the host and no launch depends on a value, so that calls may be captured in a
CUDA graph. On a CPU `attention8` is the same arithmetic in plain torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tfq_bench_cuda.kernels import attention_reference
from tfq_bench_cuda.kernels.attention_reference import SAMPLE
from tfq_bench_cuda.kernels.attention_specs import (
    Blocks,
    Keys,
    check_codes,
    check_keys,
    check_mask,
    check_operand,
    choose_blocks,
    description,
    parts,
)
from tfq_bench_cuda.kernels.norms import Table
from tfq_bench_cuda.kernels.specs import padded

__all__ = ["attend", "attention8", "prepare_keys"]


def attention8(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    qk: str = "int8",
    pv: str = "bf16",
    mask: Tensor | None = None,
    codes: Table | None = None,
    step: Tensor | None = None,
    blocks: Blocks | None = None,
) -> Tensor:
    """Attention `[B, H, S, D]` in the dtype of `q`, in memory `[B, S, H, D]`; or its codes.

    Args:
        q: bfloat16 or float16 `[B, H, S, D]`. k, v: same dtype, `[B, H, L, D]`. D is one of
            `CHANNELS` and has stride 1; the other strides are free.
        scale: of the logits, above 0; 1 / sqrt(D) if None.
        qk: `int8`, or `bf16`: the product takes queries and keys as they are.
        pv: `bf16`: the product takes the values as they are; `fp8`: e4m3, from capability 8.9.
        mask: in the dtype of q `[B, L]`, added to the logits of all heads and queries; with `qk`
            `bf16` only.
        codes: of the layer that reads the result. Then the result is int8 `[B, S, padded(H * D)]`:
            `clamp(round(x * inverse[t]) + zero_point[t], 0, 2^bits - 1) - 128` of x in float32.
        step: int64 `[1]`, t, on the device; needed with `codes`.
        blocks: of the launch, chosen if None.

    Raises:
        ValueError: for other shapes, dtypes, layouts and names.
    """
    blocks = blocks or choose_blocks(q.shape[-1], k.shape[2], qk=qk, pv=pv)
    if q.device.type == "cpu":
        return _on_cpu(q, k, v, scale, qk, pv, mask, codes, step, blocks)
    with torch.cuda.device_of(q):
        keys = prepare_keys(k, v, qk=qk, pv=pv, blocks=blocks)
        return attend(q, keys, scale=scale, mask=mask, codes=codes, step=step, blocks=blocks)


def prepare_keys(
    k: Tensor, v: Tensor, *, qk: str = "int8", pv: str = "bf16", blocks: Blocks | None = None
) -> Keys:
    """What `attend` takes; `attention8` describes the arguments. One launch, none for 16 bit."""
    check_keys(k, v, qk, pv)
    batch, heads, length, channels = k.shape
    blocks = blocks or choose_blocks(channels, length, qk=qk, pv=pv)
    plain = Keys(
        k=k, k_scale=None, k_norm=None, v=v, v_scale=None, length=length, block=blocks.keys
    )
    if qk == "bf16":
        return plain
    count = -(-length // blocks.keys)
    size = count * blocks.keys
    kept = sum(parts(channels))

    def scales() -> Tensor:
        return k.new_empty(batch, heads, count, dtype=torch.float32)

    values = v
    if pv == "fp8":
        values = v.new_empty(batch, heads, kept, size, dtype=torch.float8_e4m3fn)
    keys = Keys(
        k=k.new_empty(batch, heads, size, kept, dtype=torch.int8),
        k_scale=scales(),
        k_norm=scales(),
        v=values,
        v_scale=scales() if pv == "fp8" else None,
        length=length,
        block=blocks.keys,
    )
    unit = _unit(k, v)
    from tfq_bench_cuda.kernels.attention_key_programs import quantize_keys

    quantize_keys[(count, batch * heads)](
        k,
        *_strides(k, unit),
        v,
        *_strides(v, unit),
        keys.k,
        keys.k_scale,
        keys.k_norm,
        keys.v if pv == "fp8" else None,
        keys.v_scale,
        heads,
        length,
        size,
        D=channels,
        WIDTH=_power_of_two(channels),
        KEPT=kept,
        BLOCK=blocks.keys,
        UNIT=unit,
        SAMPLE=SAMPLE,
        VALUES=pv == "fp8",
        num_warps=4,
    )
    return keys


def attend(
    q: Tensor,
    keys: Keys,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    codes: Table | None = None,
    step: Tensor | None = None,
    blocks: Blocks | None = None,
) -> Tensor:
    """Attention of queries to prepared keys; arguments and result are those of `attention8`."""
    check_operand("q", q)
    batch, heads, queries, channels = q.shape
    qk8, pv8 = keys.k_scale is not None, keys.v_scale is not None
    names = {"qk": "int8" if qk8 else "bf16", "pv": "fp8" if pv8 else "bf16"}
    blocks = blocks or choose_blocks(channels, keys.length, **names)
    first, rest = parts(channels)
    scale = _scale(scale, channels)
    _check_pair(q, keys.k, keys.v if not pv8 else q, first + rest if qk8 else channels)
    check_mask(q, mask, keys.length, names["qk"])
    if keys.block != blocks.keys:
        raise ValueError(
            f"attention8: the keys were prepared in blocks of {keys.block}, expected {blocks.keys};"
            " give prepare_keys and attend the same blocks."
        )
    if codes is None:
        out = q.new_empty(batch, queries, heads, channels)
    else:
        check_codes(q, codes, step)
        # The kernel writes no padding.
        make = q.new_empty if padded(codes.channels) == codes.channels else q.new_zeros
        out = make(batch, queries, padded(codes.channels), dtype=torch.int8)
    unit = _unit(q, *(() if qk8 else (keys.k,)), *(() if pv8 else (keys.v,)))
    from tfq_bench_cuda.kernels.attention_programs import attend as program

    program[(-(-queries // blocks.queries), batch * heads)](
        q,
        *_strides(q, unit),
        keys.k,
        *_strides(keys.k, unit),
        keys.k_scale,
        keys.k_norm,
        keys.v,
        *_strides(keys.v, unit),
        keys.v_scale,
        mask,
        mask.stride(0) if mask is not None else 0,
        q.new_empty(batch, heads, queries, first + rest, dtype=torch.int8) if qk8 else None,
        out,
        out.stride(0),
        out.stride(1),
        codes.inverse if codes else None,
        codes.zero_point if codes else None,
        step if codes else None,
        len(codes.inverse) - 1 if codes else 0,
        heads,
        queries,
        keys.length,
        -(-keys.length // keys.block),
        scale * math.log2(math.e),
        D=channels,
        WIDTH=_power_of_two(channels),
        FIRST=first,
        REST=rest,
        M=blocks.queries,
        N=blocks.keys,
        UNIT=unit,
        QK8=qk8,
        PV8=pv8,
        MASK=mask is not None,
        EVEN=keys.length % keys.block == 0,
        BOUNDS=qk8 and not pv8 and q.dtype == torch.bfloat16,
        LAST=2**codes.bits - 1 if codes else 0,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out.transpose(1, 2) if codes is None else out


def _power_of_two(channels: int) -> int:
    return 1 << (channels - 1).bit_length()


def _unit(*operands: Tensor) -> int:
    """What divides all strides: 8 values of 16 bit are one load of 16 bytes."""
    return 8 if all(size % 8 == 0 for x in operands for size in x.stride()[:3]) else 1


def _strides(x: Tensor, unit: int) -> list[int]:
    return [size // unit for size in x.stride()[:3]]


def _scale(scale: float | None, channels: int) -> float:
    if scale is not None and not scale > 0:
        raise ValueError(f"attention8: scale is expected above 0, found {scale}.")
    return channels**-0.5 if scale is None else scale


def _check_pair(q: Tensor, k: Tensor, v: Tensor, channels: int) -> None:
    expected = (*q.shape[:2], channels)
    if (*k.shape[:2], k.shape[3]) != expected or v.dtype != q.dtype:
        raise ValueError(
            "attention8: q and keys are expected with the same heads, channels and dtype, found "
            f"{description(q)} beside keys {description(k)} and values {description(v)}."
        )


def _on_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None,
    qk: str,
    pv: str,
    mask: Tensor | None,
    codes: Table | None,
    step: Tensor | None,
    blocks: Blocks,
) -> Tensor:
    check_operand("q", q)
    check_keys(k, v, qk, pv)
    _check_pair(q, k, v, q.shape[-1])
    check_mask(q, mask, k.shape[2], qk)
    scale = _scale(scale, q.shape[-1])
    x = attention_reference.attention(
        q, k, v, scale=scale, qk=qk, pv=pv, block=blocks.keys, mask=mask
    )
    if codes is None:
        return x.transpose(1, 2).to(q.dtype).contiguous().transpose(1, 2)
    check_codes(q, codes, step)
    return attention_reference.codes_of(x, codes, step)
