"""Rounds in which contestants take turns, and the table that is made of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfq_bench.stats.intervals import median_interval

__all__ = ["Row", "grouped", "interleaved", "level", "ratio", "sqnr_db", "table"]

Times = Mapping[str, Sequence[float]]
"""Milliseconds of every contestant of a group, one for each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is told of one contestant.

    Args:
        times: of its group, the baseline's and its own among them.
        sqnr_db: of its output against FP32. own_bytes, peak_bytes: see `workers.Worker`.
    """

    name: str
    times: Times
    sqnr_db: float
    own_bytes: int
    peak_bytes: int


def grouped(names: Iterable[str], at_once: int) -> list[list[str]]:
    """The names in order, `at_once` in a group; one group for 0."""
    left = list(names)
    size = at_once or len(left) or 1
    return [left[start : start + size] for start in range(0, len(left), size)]


def interleaved(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What the calls give, by round, in an order that rotates; a first round does not count."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found = calls[name]()
            if number >= 0:
                times[name].append(found)
    return times


def ratio(row: Row, base: Row, baseline: str) -> str:
    """How many times as fast as `base`: the median within a round, with its interval.

    Of rows that were in no group together, `~` and the quotient of their ratios to the baseline,
    which was in all.
    """
    if row.name == base.name:
        return "1"
    for times in (row.times, base.times):
        if row.name in times and base.name in times:
            return _median(_ratios(times, base.name, row.name), 2)
    mine, theirs = (
        statistics.median(_ratios(one.times, baseline, one.name)) for one in (row, base)
    )
    return f"~{mine / theirs:.2f}"


def table(rows: Sequence[Row], bases: Sequence[str]) -> str:
    """Medians with their intervals: of the time, and of the ratios within a round; SQNR; memory.

    The first row is the baseline, which was in all groups.
    """
    baseline = rows[0].name
    known = [row for row in rows if row.name in bases]
    head = ["contestant", "ms", *(f"x {base.name}" for base in known), "SQNR dB"]
    head += ["own GiB", "peak GiB"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in rows:
        cells = [row.name, _median(row.times[row.name], 1)]
        cells += [ratio(row, base, baseline) for base in known]
        cells.append(f"{row.sqnr_db:.1f}")
        cells += [f"{size / 2**30:.1f}" for size in (row.own_bytes, row.peak_bytes)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def level(rounds: int) -> str:
    """How sure the intervals are: few rounds do not reach 95 %."""
    interval = median_interval(range(rounds))
    return "no intervals" if interval is None else f"{interval.level:.0%} intervals"


def sqnr_db(reference: np.ndarray, output: np.ndarray) -> float:
    """Signal to noise of an output against FP32, in dB; infinite when they are equal."""
    error = float(np.square(reference.astype(np.float64) - output).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return math.inf if error == 0 else 10 * math.log10(signal / error)


def _ratios(times: Times, base: str, name: str) -> list[float]:
    return [b / v for b, v in zip(times[base], times[name], strict=True)]


def _median(values: Sequence[float], digits: int) -> str:
    """`median [low, high]`, the interval from order statistics."""
    text, interval = f"{statistics.median(values):.{digits}f}", median_interval(values)
    if interval is None:
        return text
    return f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
