"""The difference of a cell's number to full precision, and what it means in a word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tfq_bench.api import Interval, MetricValue, NotComparable
from tfq_bench.stats import delta
from tfq_bench_reports import formatting
from tfq_bench_reports.view.types import DeltaView

__all__ = ["SAME", "compare", "compare_seeds", "exact", "half_width"]

SAME = "no measurable difference"
UNSURE = "no interval"


def exact(value: MetricValue) -> bool:
    """True for a count or a size: nothing about it was sampled or timed."""
    return value.interval is None and value.n == 1 and not value.definition.volatile


def compare(value: MetricValue, reference: MetricValue, places: int | None = None) -> DeltaView:
    """`value - reference` with its interval, and what that means in a word.

    Args:
        places: decimals of exact differences, None for as many as they need.
    """
    try:
        found = delta(value, reference)
    except NotComparable as error:
        return DeltaView(text="not comparable", word=str(error), agreed=str(error))
    unit = value.definition.unit
    factor, _ = formatting.scaled(unit)
    interval: Interval | None = found.interval
    spread = None if interval is None else (interval.high - interval.low) / 2 * factor
    certain = exact(value) and exact(reference)
    word = _word(found.value, interval, value.definition.direction, certain)
    return DeltaView(
        text=formatting.signed(found.value * factor, spread, places),
        word=word,
        agreed=word,
        span="" if interval is None else formatting.around(found.value, interval, factor),
        paired=found.paired,
    )


def compare_seeds(
    pairs: Sequence[tuple[MetricValue, MetricValue]],
) -> DeltaView:
    """The mean difference over seeds, its lowest and highest, and the word of every seed counted.

    The word never comes from the mean: each seed has its own paired interval.

    Args:
        pairs: (value, reference) of each seed; at least two.
    """
    each = [compare(value, reference) for value, reference in pairs]
    words = Counter(one.word for one in each)
    if any(one.text == "not comparable" for one in each):
        reasons = "; ".join(words)
        return DeltaView(text="not comparable", word=reasons, agreed=reasons)
    count = len(each)
    word = (
        f"{each[0].word} in {'both' if count == 2 else f'all {count}'} seeds"
        if len(words) == 1
        else ", ".join(f"{word} in {some} of {count} seeds" for word, some in words.items())
    )
    factor, _ = formatting.scaled(pairs[0][0].definition.unit)
    differences = [(value.value - reference.value) * factor for value, reference in pairs]
    noise = half_width([delta(value, reference).interval for value, reference in pairs]) * factor
    mean, half, around = formatting.mean_and_range(differences, noise)
    return DeltaView(
        text=formatting.signed(mean, half),
        word=word,
        agreed=each[0].word if len(words) == 1 else "",
        span=around,
        paired=all(one.paired for one in each),
    )


def half_width(intervals: Sequence[Interval | None]) -> float:
    """Mean half-width of the intervals that are finite; 0 without any."""
    halves = [(i.high - i.low) / 2 for i in intervals if i is not None]
    finite = [half for half in halves if math.isfinite(half)]
    return sum(finite) / len(finite) if finite else 0.0


def _word(value: float, interval: Interval | None, direction: str, certain: bool) -> str:
    if math.isnan(value):
        return "not a number"
    if interval is None:
        if not certain:
            return UNSURE
        if value == 0:
            return "equal"
    elif not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return UNSURE
    elif not (interval.low > 0 or interval.high < 0):
        return SAME
    if direction == "none":
        return "different"
    return "better" if (value < 0) == (direction == "lower") else "worse"
