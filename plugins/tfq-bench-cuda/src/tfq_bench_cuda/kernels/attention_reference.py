"""The arithmetic of `tfq_bench_cuda.kernels.attention` in plain torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench_cuda.kernels.norm_reference import Table, row_codes

__all__ = ["attention", "codes_of", "sample"]

SAMPLE = 64
"""Tokens whose mean is taken off all keys of a head."""


def sample(length: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 indices of those tokens: spread by an odd step, so that they share no image column."""
    drawn = torch.arange(min(length, SAMPLE), device=device)
    return drawn * (length // SAMPLE | 1) % length


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    qk: str,
    pv: str,
    block: int,
    mask: Tensor | None = None,
) -> Tensor:
    """`[B, H, S, D]` in float32, of 8-bit operands as `attention8` makes them.

    The kernel sums in another order and rounds `p` to the values' dtype.

    Args:
        block: keys with the same scale. Others: those of `attention8`.
    """
    if qk == "int8":
        mean = k[:, :, sample(k.shape[2], k.device)].float().mean(2, keepdim=True)
        k = _blockwise(k.float() - mean, block, 127.0, torch.int8)
        amax = q.float().abs().amax(-1, keepdim=True).clamp(min=1e-20)
        q = (q.float() * (127 / amax)).round() * (amax / 127)
    if pv == "fp8":
        v = _blockwise(v.float(), block, 448.0, torch.float8_e4m3fn)
    logits = q.float() @ k.float().transpose(2, 3) * scale
    if mask is not None:
        logits += mask.float().clamp(min=-1e30)[:, None, None]
    return torch.softmax(logits, -1) @ v.float()


def codes_of(x: Tensor, codes: Table, step: Tensor) -> Tensor:
    """int8 `[B, S, padded(H * D)]` of `[B, H, S, D]` in float32."""
    (code,) = row_codes(x.transpose(1, 2).flatten(2), step=step, tables=[codes])
    return code


def _blockwise(x: Tensor, block: int, largest: float, dtype: torch.dtype) -> Tensor:
    """`x` `[B, H, L, D]` rounded to a dtype, with one scale for each block of tokens."""
    length = x.shape[2]
    blocks = F.pad(x, (0, 0, 0, -length % block)).unflatten(2, (-1, block))
    amax = blocks.abs().amax((3, 4), keepdim=True).clamp(min=1e-20)
    scaled = blocks * (largest / amax)
    if dtype == torch.int8:
        scaled = scaled.round()
    return (scaled.to(dtype).float() * (amax / largest)).flatten(2, 3)[:, :, :length]
