"""Where to clip: ranges of tensors and channels, always holding 0.

All functions take rows `[C, N]`: one row per output channel of a weight (`weight.flatten(1)`), or
a single row for a whole tensor. They return `(low, high)`, float32 `[C]`, with low <= 0 <= high.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.state.affine import affine_from_range, fake_quantize

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MOMENTUM", "EmaRange", "minmax", "mse_range", "percentile"]

MOMENTUM = 0.9
"""Of ranges that follow batches, where no method's code says another; see `EmaRange`."""

NORM = 2.4
"""Exponent of the error that the search minimises; BRECQ and its descendants use it."""

CANDIDATES = 80
"""Candidate k shrinks both ends by k percent; the narrowest keeps 21 percent."""

CHUNK_ELEMENTS = 2**24
"""How many candidate values are held at once (64 MiB of float32)."""


def minmax(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest range that holds every value and 0.

    Args:
        rows: float `[C, N]`, N >= 1.

    Raises:
        QuantizationError: a value is not finite.
    """
    low, high = rows.float().aminmax(dim=1)
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise QuantizationError("values to be quantized must be finite, found NaN or infinity.")
    return low.clamp(max=0.0), high.clamp(min=0.0)


def mse_range(
    rows: Tensor,
    bits: int,
    *,
    symmetric: bool = False,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The range, out of 80 shrunk ones, with the least mean |x^ - x|^2.4 in each row.

    All rows and as many candidates as fit `CHUNK_ELEMENTS` are scored in one go. The first
    candidate is the whole range, so the result is never worse than `minmax`; among equals the
    widest wins. A row of zeros keeps its range of zero width.

    Args:
        rows: float `[C, N]`, N >= 1.
        symmetric: whether codes will be symmetric around zero, see `affine_from_range`.
        start: the range to shrink, when `rows` is only a sample of the values; else their minmax.
    """
    rows = rows.float()
    low, high = minmax(rows) if start is None else start
    factors = 1.0 - torch.arange(CANDIDATES, device=rows.device, dtype=torch.float32) / 100.0
    per_chunk = max(1, CHUNK_ELEMENTS // rows.numel())
    best = torch.full_like(low, torch.inf)
    factor = torch.ones_like(low)
    for candidates in torch.split(factors, per_chunk):
        shrink = candidates[:, None]
        scale, zero_point = affine_from_range(low * shrink, high * shrink, bits, symmetric)
        quantized = fake_quantize(rows, scale[..., None], zero_point[..., None], bits)
        scores = quantized.sub_(rows).abs_().pow_(NORM).mean(dim=2)
        score, index = scores.min(dim=0)
        better = score < best
        best = torch.where(better, score, best)
        factor = torch.where(better, candidates[index], factor)
    return low * factor, high * factor


def percentile(rows: Tensor, fraction: float = 0.999) -> tuple[Tensor, Tensor]:
    """The range between the quantiles 1 - fraction and fraction of each row, widened to hold 0.

    Args:
        fraction: in (0.5, 1].
    """
    bounds = torch.tensor([1.0 - fraction, fraction], device=rows.device, dtype=torch.float32)
    low, high = torch.quantile(rows.float(), bounds, dim=1)
    return low.clamp(max=0.0), high.clamp(min=0.0)


class EmaRange:
    """A range that follows batches: new = momentum * old + (1 - momentum) * batch.

    The first batch sets it.

    Args:
        momentum: in [0, 1).
    """

    def __init__(self, momentum: float = MOMENTUM) -> None:
        self.momentum = momentum
        self._range: tuple[Tensor, Tensor] | None = None

    def update(self, low: Tensor, high: Tensor) -> None:
        """Takes a batch's range."""
        if self._range is None:
            self._range = (low, high)
        else:
            self._range = (
                torch.lerp(low, self._range[0], self.momentum),
                torch.lerp(high, self._range[1], self.momentum),
            )

    def range(self) -> tuple[Tensor, Tensor]:
        """The current range.

        Raises:
            QuantizationError: no batch was seen.
        """
        if self._range is None:
            raise QuantizationError("a range was asked for before any batch was seen.")
        return self._range
