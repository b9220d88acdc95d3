"""MSE clips: of a weight's channels, of a layer's input, and of an input that comes in batches.

Symbols: `b` bits, `c` clip, `s` scale, `z` zero point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tfq_bench.api import CalibrationError, QuantizationError
from tfq_bench.quant import EmaRange, affine_from_range, fake_quantize, minmax

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClipRanges", "clip_range", "weight_grid"]

NORM = 2.4
"""Exponent of the searched error (released code)."""

CANDIDATES = 100
"""Candidate clips are i/100 of the largest magnitude, i = 1..100 (released code)."""

CHUNK_ELEMENTS = 2**22
"""How many candidate values are held at once (16 MiB of float32: fits a cache)."""

INT8 = 8


def clip_range(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The range [-c, c] with the least mean |x^ - x|^2.4 in each row, out of 100 clips c.

    A row without negative values has [0, c], one without positive values [-c, 0]. Among equals the
    widest wins.

    Args:
        rows: float `[C, N]`, N >= 1. bits: 2 to 8.

    Returns:
        `(low, high)`, float32 `[C]`.

    Raises:
        QuantizationError: a value is not finite.
    """
    low, high = minmax(rows)
    extent = torch.maximum(-low, high)
    low = -extent * (low < 0) * _factors(rows)
    high = extent * (high > 0) * _factors(rows)
    scale, zero_point = affine_from_range(low, high, bits)
    best = _least_error(rows, scale, zero_point, bits)
    return _pick(low, best), _pick(high, best)


def weight_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point with the least error in each row, of grids that spread 2^b codes on 2c.

    s = 2c / (2^b - 1), so that 0 would lie half way between two codes: the released code takes the
    one below or the one above as zero point, whichever float noise says. Here both are searched,
    as in `clip_range`, and that of the lower squared error is taken. With 8 bits it is always 128,
    because 255 - 127 does not fit int8, which kernels multiply.

    Args:
        rows: float `[C_out, N]`, N >= 1. bits: 2 to 8.

    Returns:
        Float32 and int32 `[C_out]`. A row of zeros has scale 1.

    Raises:
        QuantizationError: a value is not finite.
    """
    low, high = minmax(rows)
    # `affine_from_range` gives a range without width scale 1, and no scale underflows.
    clip = torch.maximum(-low, high) * _factors(rows)
    scale, _ = affine_from_range(-clip, clip, bits)
    upper = _best_scale(rows, scale, 2 ** (bits - 1), bits)
    if bits == INT8:
        return upper[0], upper[1]
    lower = _best_scale(rows, scale, 2 ** (bits - 1) - 1, bits)
    better = lower[2] < upper[2]
    return torch.where(better, lower[0], upper[0]), torch.where(better, lower[1], upper[1])


class ClipRanges:
    """One range per layer: new = 0.9 * old + 0.1 * `clip_range` of the batch.

    Its `update` is an `Observer`. Both ends are averaged, as the released code does.

    Args:
        bits: of the codes, by layer name.
        values: how many values of a batch are searched, drawn uniformly with replacement; all
            when the batch has no more.
        generator: CPU generator of that draw.
    """

    def __init__(self, bits: dict[str, int], *, values: int, generator: torch.Generator) -> None:
        self._bits = bits
        self._values = values
        self._generator = generator
        self._ranges: dict[str, EmaRange] = {}

    def update(self, name: str, x: Tensor) -> None:
        """Takes a batch of inputs of the layer called `name`.

        Raises:
            CalibrationError: a value is not finite.
        """
        flat = x.reshape(1, -1)
        if flat.shape[1] > self._values:
            index = torch.randint(flat.shape[1], (self._values,), generator=self._generator)
            flat = flat[:, index.to(flat.device)]
        try:
            low, high = clip_range(flat, self._bits[name])
        except QuantizationError as error:
            raise CalibrationError(f"input of layer '{name}': {error}") from error
        self._ranges.setdefault(name, EmaRange(momentum=0.9)).update(low, high)

    def range(self, name: str) -> tuple[Tensor, Tensor]:
        """`(low, high)` of a layer's input, float32 `[1]` each.

        Raises:
            CalibrationError: the layer was never run.
        """
        if name not in self._ranges:
            raise CalibrationError(
                f"layer '{name}' was not run by the network during calibration; its input's range "
                "is unknown."
            )
        return self._ranges[name].range()


def _factors(rows: Tensor) -> Tensor:
    """Shares of the largest magnitude, `[100, 1]`, the widest first."""
    return torch.arange(CANDIDATES, 0, -1, device=rows.device).float()[:, None] / CANDIDATES


def _best_scale(
    rows: Tensor, scale: Tensor, middle: int, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the scales `[100, C]`: the best for zero point `middle`, that zero point, squared error.

    Each `[C]`.
    """
    zero_point = torch.full_like(scale, middle, dtype=torch.int32)
    best = _pick(scale, _least_error(rows, scale, zero_point, bits))
    error = fake_quantize(rows, best[:, None], zero_point[0, :, None], bits).sub_(rows)
    return best, zero_point[0], error.square_().mean(dim=1)


def _least_error(rows: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Index, int64 `[C]`, of the candidate with the least error; the first among equals.

    Args:
        scale, zero_point: `[100, C]`.
    """
    rows = rows.float()
    at_once = max(1, CHUNK_ELEMENTS // rows.numel())
    scores = [
        fake_quantize(rows, s[..., None], z[..., None], bits)
        .sub_(rows)
        .abs_()
        .pow_(NORM)
        .mean(dim=2)
        for s, z in zip(torch.split(scale, at_once), torch.split(zero_point, at_once), strict=True)
    ]
    return torch.cat(scores).argmin(dim=0)


def _pick(candidates: Tensor, index: Tensor) -> Tensor:
    return candidates.gather(0, index[None])[0]
