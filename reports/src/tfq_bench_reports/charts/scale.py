"""Axes of charts: data range to pixels, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tfq_bench_reports import formatting

__all__ = ["Scale", "fitted", "tick_labels"]

LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic when allowed."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps [low, high] to pixels [start, stop]; `stop < start` for a vertical axis."""

    low: float
    high: float
    start: float
    stop: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel of a value; values outside are moved to the nearest end."""
        low, high, value = (self._linear(v) for v in (self.low, self.high, value))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.start + share * (self.stop - self.start)

    def _linear(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(max(value, self.low * 1e-3))


def fitted(
    values: Iterable[float], start: float, stop: float, *, log: bool = False, ticks: int = 5
) -> Scale:
    """A scale that holds all finite values with a margin.

    Args:
        log: allows a logarithmic axis, taken when values are positive and span a wide range.
    """
    found = [value for value in values if math.isfinite(value)]
    low, high = min(found, default=0.0), max(found, default=1.0)
    positive = [value for value in found if value > 0]
    if log and positive and len(positive) == len(found) and high / low >= LOG_FROM:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        decades = range(first, last + 1, max(1, (last - first) // ticks))
        return Scale(
            low=10.0**first,
            high=10.0**last,
            start=start,
            stop=stop,
            log=True,
            ticks=tuple(10.0**decade for decade in decades),
        )
    if high == low:
        pad = (abs(low) or 1) * 0.1
        low, high = (max(0.0, low - pad) if low >= 0 else low - pad), high + pad
    margin = (high - low) * 0.08
    # A margin must not invent negative sizes or errors.
    low = max(0.0, low - margin) if low >= 0 else low - margin
    high += margin
    step = _step((high - low) / ticks)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return Scale(
        low=low,
        high=high,
        start=start,
        stop=stop,
        log=False,
        ticks=tuple(number * step for number in range(first, last + 1)),
    )


def _step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def tick_labels(scale: Scale) -> list[str]:
    """One label for every tick: plain numbers, or powers of ten where those would be long."""
    if scale.log and not 1e-3 <= scale.low <= scale.high < 1e5:
        exponents = [str(round(math.log10(value))) for value in scale.ticks]
        return [f"10{exponent.translate(_SUPERSCRIPT)}" for exponent in exponents]
    if scale.log:
        return [formatting.plain(f"{value:g}") for value in scale.ticks]
    step = scale.ticks[1] - scale.ticks[0] if len(scale.ticks) > 1 else 1.0
    if max(abs(scale.low), abs(scale.high)) >= 1e5 or step < 1e-4:
        return [formatting.plain(f"{value:.3g}") for value in scale.ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [formatting.plain(f"{value + 0.0:.{decimals}f}") for value in scale.ticks]
