"""Intervals and resampling plans."""

from __future__ import annotations

import numpy as np
import pytest

from tfq_bench.stats import intervals


def test_counts_describe_the_same_resamples_as_indices():
    """A replicate's counts say how often its indices name each image."""
    indices = intervals.bootstrap_indices(7, 5, seed=3)
    counts = intervals.bootstrap_counts(7, 5, seed=3)
    assert [[list(row).count(i) for i in range(7)] for row in indices] == counts.tolist()


def test_resamples_depend_on_the_seed_only():
    """Two cells of equal size are resampled alike, and another seed resamples otherwise."""
    first = intervals.bootstrap_indices(20, 4, seed=0)
    assert np.array_equal(first, intervals.bootstrap_indices(20, 4, seed=0))
    assert not np.array_equal(first, intervals.bootstrap_indices(20, 4, seed=1))


def test_resampling_id_covers_images_and_plan():
    """Values pair only when images, their number, replicates and seed agree."""
    base = intervals.resampling_id("noise", 10, 200)
    assert base == intervals.resampling_id("noise", 10, 200)
    others = {
        intervals.resampling_id("other", 10, 200),
        intervals.resampling_id("noise", 11, 200),
        intervals.resampling_id("noise", 10, 100),
        intervals.resampling_id("noise", 10, 200, seed=1),
    }
    assert len(others | {base}) == 5


def test_mean_interval_has_the_width_of_the_standard_error():
    """The interval of a mean is that of the textbook, within bootstrap noise."""
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    value, interval, replicates = intervals.mean_value(values, replicates=1000)
    assert values.mean() == pytest.approx(value)
    expected = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert expected == pytest.approx((interval.high - interval.low) / 2, rel=0.1)
    assert len(replicates) == 1000


def test_normal_interval_is_centred_on_the_value_not_on_the_replicates():
    """A bootstrap that is biased as a whole does not move the interval."""
    interval = intervals.normal_interval(10.0, [20.0, 22.0, 24.0])
    assert pytest.approx(10.0) == (interval.low + interval.high) / 2
    assert pytest.approx(1.959964 * 2.0, rel=1e-6) == interval.high - 10.0


def test_one_replicate_gives_no_interval():
    """Without spread there is no interval rather than one of width zero."""
    assert intervals.normal_interval(1.0, [1.0]) is None
    assert intervals.mean_value(np.ones(3), replicates=0)[1:] == (None, ())


def test_median_interval_uses_the_ranks_of_the_binomial():
    """For nine rounds the second smallest and second largest enclose the median at 96.1%."""
    interval = intervals.median_interval([9, 1, 8, 2, 7, 3, 6, 4, 5])
    assert (interval.low, interval.high, interval.level) == (2.0, 8.0, 0.95)


def test_median_interval_of_few_rounds_admits_its_lower_level():
    """Five rounds cannot reach 95%: the full range is given with its true level."""
    interval = intervals.median_interval([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (interval.low, interval.high, interval.level) == (1.0, 5.0, 0.9375)
    assert intervals.median_interval([1.0]) is None


def test_jackknife_of_a_mean_is_its_standard_error():
    """Leaving out single values of a mean reproduces s/sqrt(n)."""
    values = np.random.default_rng(1).normal(size=30)
    without = [np.delete(values, i).mean() for i in range(30)]
    interval = intervals.jackknife_interval(float(values.mean()), without)
    expected = 1.959964 * values.std(ddof=1) / np.sqrt(30)
    assert expected == pytest.approx((interval.high - interval.low) / 2, rel=1e-6)
