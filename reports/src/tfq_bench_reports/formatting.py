"""Numbers as a reader wants them: as many digits as the interval supports, units in words.

A minus is the true minus sign, so that columns of tabular digits align.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tfq_bench.api import Interval

__all__ = [
    "MINUS",
    "TIMES",
    "around",
    "decimals",
    "mean_and_range",
    "number",
    "plain",
    "quantity",
    "ratio",
    "scaled",
    "signed",
    "span",
]

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"

_MEGA = 1e6
_MOST = 6  # decimals
_TINY, _HUGE = 1e-3, 1e6


def scaled(unit: str) -> tuple[float, str]:
    """Factor and unit to print a unit with: bytes are printed in megabytes (1e6 bytes)."""
    return (1 / _MEGA, "MB") if unit == "bytes" else (1.0, unit)


def quantity(value: float, unit: str) -> str:
    """A number with its unit, for running text: `7.06 MB`, `3.4×`."""
    factor, name = scaled(unit)
    text = number(value * factor)
    if name == "x":
        return f"{text}{TIMES}"
    return f"{text} {name}".rstrip()


def number(value: float, spread: float | None = None, places: int | None = None) -> str:
    """`value` rounded to two digits of `spread`, or to four significant digits without one.

    Args:
        places: decimals to print when there is no spread.
    """
    if places is not None and not spread:
        return plain(f"{value:.{places}f}")
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    fits = bool(spread) and _decimals(value, spread) < _MOST
    if value and not fits and (abs(value) < _TINY or abs(value) >= _HUGE):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    if value == int(value) and not spread:
        return plain(f"{int(value)}")
    text = f"{value:.{_decimals(value, spread)}f}"
    if not spread and "." in text:
        text = text.rstrip("0").rstrip(".")  # zeros would claim a precision that nobody knows
    return plain(text)


def decimals(values: Iterable[float]) -> int | None:
    """How many decimals show all exact values of a column alike; None when no number does."""
    needed = 0
    for value in values:
        text = number(value)
        if not math.isfinite(value) or "e" in text:
            return None
        needed = max(needed, len(text.partition(".")[2]))
    return needed


def ratio(value: float) -> str:
    """A ratio of two exact numbers, to two or three significant digits."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def signed(value: float, spread: float | None = None, places: int | None = None) -> str:
    """Like `number`, with a plus sign where it is positive."""
    text = number(value, spread, places)
    return f"+{text}" if value > 0 else text


def around(value: float, interval: Interval | None, factor: float = 1.0) -> str:
    """What to print beside a value: `± 1.3`, or `11.9 to 12.8` when it is not centred."""
    if interval is None:
        return ""
    low, high = interval.low * factor, interval.high * factor
    if not (math.isfinite(low) and math.isfinite(high)):
        return "interval unknown"
    half = (high - low) / 2
    if abs((high + low) / 2 - value * factor) <= 1e-6 * max(abs(half), 1e-300):
        return f"± {number(half, half)}"
    return span(low, high)


def span(low: float, high: float, spread: float | None = None) -> str:
    """Both ends of an interval: `11.9 to 12.8`.

    Args:
        spread: what decides the digits, half of the width unless given.
    """
    spread = (high - low) / 2 if spread is None else spread
    return f"{number(low, spread)} to {number(high, spread)}"


def mean_and_range(values: Sequence[float], noise: float = 0.0) -> tuple[float, float | None, str]:
    """Mean of the values, the spread that decides its digits, and their range in words.

    The range is empty where all values are equal.

    Args:
        noise: half-width of the values' own intervals; digits beyond it would claim too much.
    """
    mean = sum(values) / len(values)
    if not math.isfinite(mean):
        return mean, None, ""
    low, high = min(values), max(values)
    if low == high:
        return low, noise or None, ""
    spread = max((high - low) / 2, noise)
    return mean, spread, span(low, high, spread)


def plain(text: str) -> str:
    """`text` with a true minus sign."""
    return text.replace("-", MINUS)


def _decimals(value: float, spread: float | None) -> int:
    if spread and math.isfinite(spread) and spread > 0:
        return min(_MOST, max(0, 1 - math.floor(math.log10(spread))))
    return min(_MOST, max(0, 3 - math.floor(math.log10(abs(value))))) if value else 0
