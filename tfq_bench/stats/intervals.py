"""Confidence intervals from resampled images and repeated rounds.

Every cell with the same number of images is resampled by the same indices, so replicate `b` of two
cells used the same images and the difference of their replicates has a paired interval.

Intervals of bootstrapped values are `value ± z · std(replicates)`, not percentiles: a resample
repeats images, which moves a Fréchet distance systematically upward, and a percentile interval
would move with it. The spread is not affected to first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from tfq_bench.errors import MetricError
from tfq_bench.keys import digest
from tfq_bench.types import Interval

__all__ = [
    "LEVEL",
    "REPLICATES",
    "SEED",
    "bootstrap_counts",
    "bootstrap_indices",
    "jackknife_interval",
    "mean_value",
    "median_interval",
    "normal_interval",
    "resampling_id",
]

LEVEL = 0.95
REPLICATES = 200
SEED = 0


def bootstrap_indices(n: int, replicates: int, seed: int = SEED) -> np.ndarray:
    """int64 `[replicates, n]`: which of n images each replicate draws, with replacement."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, n, size=(replicates, n))


def bootstrap_counts(n: int, replicates: int, seed: int = SEED) -> np.ndarray:
    """int64 `[replicates, n]`: how often each replicate of `bootstrap_indices` draws an image."""
    indices = bootstrap_indices(n, replicates, seed)
    rows = [np.bincount(row, minlength=n) for row in indices]
    return np.stack(rows) if rows else indices


def resampling_id(pairing: str, n: int, replicates: int, seed: int = SEED) -> str:
    """Id of images and resampling plan: replicates of two values with equal ids pair."""
    return digest({"images": pairing, "n": n, "replicates": replicates, "seed": seed}, 12)


def normal_interval(
    value: float, replicates: Sequence[float] | np.ndarray, level: float = LEVEL
) -> Interval | None:
    """`value ± z · std(replicates)`; None with fewer than two replicates.

    Raises:
        MetricError: one of them is not finite, so that there is no interval.
    """
    if len(replicates) < 2:
        return None
    _refuse_infinite(np.append(replicates, value), "the value and its resamples")
    half = _z(level) * float(np.std(replicates, ddof=1))
    return Interval(low=value - half, high=value + half, level=level, method="bootstrap-se")


def mean_value(
    per_item: np.ndarray, *, replicates: int = REPLICATES, seed: int = SEED, level: float = LEVEL
) -> tuple[float, Interval | None, tuple[float, ...]]:
    """Mean of `per_item` `[n]`, its interval, and the means of the bootstrap replicates.

    Raises:
        MetricError: an item is not finite; names the first.
    """
    values = np.asarray(per_item, dtype=np.float64)
    _refuse_infinite(values, "images")
    n = len(values)
    means = bootstrap_counts(n, replicates, seed) @ values / n
    value = float(values.mean())
    return value, normal_interval(value, means, level), tuple(float(mean) for mean in means)


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Interval of the median from order statistics; holds for every distribution.

    The k-th smallest and k-th largest of n values enclose the median with probability
    `1 - 2 P(Binomial(n, 1/2) < k)`. The largest k that reaches `level` is taken; with five or
    fewer values none reaches 0.95, and the full range with its own, lower level is returned.

    Returns:
        None with fewer than two values.

    Raises:
        MetricError: one of them is not finite.
    """
    n = len(values)
    if n < 2:
        return None
    _refuse_infinite(values, "rounds")
    ordered = sorted(values)
    k, coverage = 1, 1 - 2 * 0.5**n
    while 2 * (k + 1) <= n:
        tail = sum(math.comb(n, i) for i in range(k + 1)) * 0.5**n
        if 1 - 2 * tail < level:
            break
        k, coverage = k + 1, 1 - 2 * tail
    return Interval(
        low=float(ordered[k - 1]),
        high=float(ordered[n - k]),
        level=min(level, coverage),
        method="order-statistics",
    )


def jackknife_interval(
    value: float, without: Sequence[float] | np.ndarray, level: float = LEVEL
) -> Interval | None:
    """Interval from leaving out one group at a time, for statistics that repeats would break.

    Args:
        without: the statistic without group g, for each of G equal groups.

    Returns:
        `value ± z · sqrt((G - 1)/G · Σ_g (θ_g - mean θ)²)`; None with fewer than two groups.

    Raises:
        MetricError: one of them is not finite.
    """
    groups = len(without)
    if groups < 2:
        return None
    values = np.asarray(without, dtype=np.float64)
    _refuse_infinite(np.append(values, value), "the value and those without a group")
    error = math.sqrt((groups - 1) / groups * float(((values - values.mean()) ** 2).sum()))
    half = _z(level) * error
    return Interval(low=value - half, high=value + half, level=level, method=f"jackknife-{groups}")


def _refuse_infinite(values: Sequence[float] | np.ndarray, what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise MetricError(
            f"an interval needs finite numbers; {len(bad)} of {len(values)} ({what}) are not, the "
            f"first is number {bad[0]}."
        )


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)
