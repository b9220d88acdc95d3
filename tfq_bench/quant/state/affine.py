"""Uniform affine quantization, the one integer semantics of the whole suite.

    q  = clamp(round(x * (1/s)) + z, 0, 2^b - 1)        x^ = s * (q - z)

`s` scale, `z` zero point, `b` bits. Codes are always unsigned; a symmetric range has
z = 2^(b-1). `round` goes half to even, and x is multiplied by the float32 inverse of the scale,
not divided by the scale: this is what `torch.quantize_per_tensor` and the CPU kernels compute, so
their codes and these are equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "affine_from_range",
    "centred_codes",
    "dequantize",
    "fake_quantize",
    "per_channel",
    "quantize",
    "select_step",
]

SMALLEST_SCALE = 2.0**-100
"""Floor of every scale: its inverse is finite in float32."""


def affine_from_range(
    low: Tensor, high: Tensor, bits: int, symmetric: bool = False
) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) of ranges, each with the shape of `low`.

    The range is first widened to hold 0, so that 0 is exact: zero padding needs it.
    Asymmetric: s = (high - low) / (2^b - 1), z = round(-low / s).
    Symmetric: m = max(|low|, |high|), s = m / (2^(b-1) - 1), z = 2^(b-1); at 4 bits s = m / 7, so
    that -m and m are both exact, and code 0 (which means -8s) is left to values below -m.

    Args:
        low, high: float, any equal shape, one entry per tensor or channel.
        bits: 2 to 8.

    A range of width zero gets scale 1: its only value, 0, is exact.
    """
    low = low.float().clamp(max=0.0)
    high = high.float().clamp(min=0.0)
    if symmetric:
        extent = torch.maximum(-low, high)
        scale = extent / (2 ** (bits - 1) - 1)
        zero_point = torch.full_like(scale, 2 ** (bits - 1))
    else:
        # Half the width first: high - low may overflow where low and high do not.
        extent = high / 2 - low / 2
        scale = extent * (2.0 / (2**bits - 1))
    scale = torch.where(extent > 0, scale.clamp(min=SMALLEST_SCALE), torch.ones_like(scale))
    if not symmetric:
        zero_point = (-low / scale).round().clamp(0, 2**bits - 1)
    return scale, zero_point.to(torch.int32)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """uint8 codes of x, with x's shape.

    Args:
        scale, zero_point: float32 and int32, broadcastable to x (see `per_channel`).
    """
    return _codes(x, scale, zero_point, bits, torch.round_).to(torch.uint8)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """float32 `scale * (codes - zero_point)`, with the shape of `codes`."""
    return codes.float().sub_(zero_point).mul_(scale)


def centred_codes(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bits: int,
    rounded: Callable[[Tensor], Tensor] = torch.round_,
) -> Tensor:
    """float32 codes of x less their zero point, integers between -255 and 255, with x's shape.

    Reads scale and zero point on the device only, so it may run inside a captured CUDA graph.

    Args:
        rounded: rounds a float32 tensor that it may overwrite; another one may have a gradient.
    """
    return _codes(x, scale, zero_point, bits, rounded).sub_(zero_point)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bits: int,
    rounded: Callable[[Tensor], Tensor] = torch.round_,
) -> Tensor:
    """float32 `dequantize(quantize(x))` without the detour through uint8; equal bit by bit.

    Args:
        rounded: as in `centred_codes`.
    """
    return centred_codes(x, scale, zero_point, bits, rounded).mul_(scale)


def select_step(
    scale: Tensor, zero_point: Tensor, index: Tensor, dims: int
) -> tuple[Tensor, Tensor]:
    """The scale and zero point of the current step, to broadcast over samples `[B, ...]`.

    Args:
        scale, zero_point: `[T]`, one entry a sampler step, or `[1]`, which are returned.
        index: int64, the step of the batch (`[1]`) or of each sample (`[B]`).
        dims: how many dimensions the samples have, B included.
    """
    if scale.numel() == 1:
        return scale, zero_point
    shape = (-1, *(1,) * (dims - 1))
    return (
        scale.index_select(0, index).reshape(shape),
        zero_point.index_select(0, index).reshape(shape),
    )


def per_channel(values: Tensor, weight: Tensor) -> Tensor:
    """`values` `[C_out]` as `[C_out, 1, ...]`, to broadcast over a weight `[C_out, ...]`."""
    return values.reshape(-1, *(1,) * (weight.dim() - 1))


def _codes(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bits: int,
    rounded: Callable[[Tensor], Tensor],
) -> Tensor:
    codes = rounded(x.float().mul(scale.reciprocal())).add_(zero_point)
    return codes.clamp_(0, 2**bits - 1)
