"""How far two runs of one series may differ though nothing changed.

The interval of the difference knows the noise of images and rounds, and is all there is to know of
a number that two runs of one cell give alike. A volatile number (a time, a peak of memory) moves
from run to run besides, which the steps of its series show: their median, divided by 0.954,
estimates the standard deviation of one run. That is the median moving range of control charts for
single values (Wheeler, "Understanding Statistical Process Control"). A slow drift hardly enters it,
and neither do a few large steps. The larger of the two noises counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist, median

from tfq_bench.stats.compare import Delta
from tfq_bench.types import Interval

__all__ = ["FEWEST_STEPS", "widened"]

FEWEST_STEPS = 5
"""From so many steps on they say something about noise."""

MEDIAN_RANGE = 0.954
"""Median distance of two draws from a normal distribution of standard deviation 1."""


def widened(difference: Delta, values: Sequence[float], tail: float, *, volatile: bool) -> Delta:
    """The difference of two runs with an interval that each end misses with probability `tail`.

    Args:
        values: of all runs of the series, in order. Of a volatile number the interval is endless
            while they have fewer than `FEWEST_STEPS` steps.
        tail: between 0 and 0.5, for one side.
    """
    half, method = NormalDist().inv_cdf(1 - tail) * difference.error, "normal"
    if volatile and (between := _between_runs(values, tail)) > half:
        half, method = between, "median-moving-range"
    if not half:
        return difference
    low, high = difference.value - half, difference.value + half
    return replace(
        difference, interval=Interval(low=low, high=high, level=1 - 2 * tail, method=method)
    )


def _between_runs(values: Sequence[float], tail: float) -> float:
    steps = [abs(b - a) for a, b in pairwise(values)]
    if len(steps) < FEWEST_STEPS:
        return math.inf
    return math.sqrt(2) * median(steps) / MEDIAN_RANGE * _quantile(len(steps), tail)


def _quantile(steps: int, tail: float) -> float:
    """Of Student's t: the spread is an estimate, and from few steps a poor one.

    A median of n steps, which overlap, knows a variance about as well as n / 3 free numbers do;
    `tests/stats/test_drift.py` holds the rate of false alarms against simulated series.
    """
    from scipy.special import stdtrit

    return float(stdtrit(steps / 3, 1 - tail))
