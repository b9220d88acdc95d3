"""Cache-based maintenance: the temporal features themselves are quantized and stored.

    c[t, i] = Q(emb[t, i]; s, z)

emb is the full-precision feature, so no error of weights or inputs enters; what is left is the
rounding of the feature. What exactly the paper stores is not known to us
(arXiv:2407.19547 was read in its abstract only): bits and granularity are options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from tfq_bench.api import QuantizationError
from tfq_bench.quant import TemporalCache, affine_from_range, dequantize, quantize

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Granularity", "quantize_feature"]

Granularity = Literal["step", "block", "channel"]
"""What shares a scale: one step's channels of a block, all of a block, or a channel's steps."""

_AXES = {"step": (1,), "block": (0, 1), "channel": (0,)}

HALF = 16

FACTORS = tuple(0.8 + 0.005 * number for number in range(81))
"""Of the min-max range, from 0.8 to 1.2."""


def quantize_feature(
    name: str,
    feature: Tensor,
    *,
    bits: int,
    granularity: Granularity,
    selected: Tensor | None = None,
) -> TemporalCache:
    """The cache of one projection's feature, on the CPU.

    Args:
        feature: float32 `[T, C]`, full precision, bias included.
        bits: 2 to 8, or 16 for float16.
        selected: bool `[T]`, the steps at which it is read; all by default.

    Raises:
        QuantizationError: a value is not finite, or beyond float16 at 16 bits.
    """
    feature = feature.detach().float().cpu()
    if not bool(torch.isfinite(feature).all()):
        raise QuantizationError(f"temporal feature of '{name}' is not finite; look at its weights.")
    if selected is None:
        selected = torch.ones(len(feature), dtype=torch.bool)
    if bits == HALF:
        return TemporalCache(
            name=name,
            bits=bits,
            values=feature.half(),
            scale=None,
            zero_point=None,
            selected=selected,
        )
    scale, zero_point = _search(feature, _AXES[granularity], bits)
    return TemporalCache(
        name=name,
        bits=bits,
        values=quantize(feature, scale, zero_point, bits),
        scale=scale,
        zero_point=zero_point,
        selected=selected,
    )


def _search(feature: Tensor, axes: tuple[int, ...], bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point whose rounding moves the feature least, from ranges around min-max.

    A channel has one value a step: so few that where they fall on the grid matters. Steps count
    relative to their norm, as in the temporal error.
    """
    low, high = feature.amin(dim=axes, keepdim=True), feature.amax(dim=axes, keepdim=True)
    weight = 1.0 / feature.square().sum(dim=1, keepdim=True).clamp(min=torch.finfo().tiny)
    scale, zero_point = affine_from_range(low, high, bits)
    least = torch.full_like(scale, torch.inf)
    for factor in FACTORS:
        candidate = affine_from_range(low * factor, high * factor, bits)
        rounded = dequantize(quantize(feature, *candidate, bits), *candidate)
        error = (weight * (rounded - feature).square()).sum(dim=axes, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, candidate[0], scale)
        zero_point = torch.where(better, candidate[1], zero_point)
    return scale, zero_point
