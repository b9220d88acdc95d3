"""Metrics and intervals are never made of numbers that are not finite, or of too few images."""

import math

import numpy as np
import pytest

from tfq_bench.cli import main
from tfq_bench.errors import MetricError


def test_features_that_are_not_finite_name_the_image(reference):
    """A metric of features never sees them; the first image is named."""
    from tfq_bench.metrics.features import cell_features, cell_logits
    from tfq_bench.testing.inputs import TinyInputs

    class Broken:
        name, protocol = "broken", {"x": 1}

        def features(self, images, *, device):
            rows = np.zeros((len(images), 3), np.float32)
            rows[5, 1] = np.nan
            return rows

        logits = features

    inputs = TinyInputs(images=8)
    for compute in (cell_features, cell_logits):
        with pytest.raises(MetricError, match="image 5 of the cell features that are not finite"):
            compute(inputs, Broken())
    with pytest.raises(MetricError, match="image 5 of the full-precision cell"):
        cell_features(inputs, Broken(), of="reference")


@pytest.mark.parametrize(
    ("metric", "images", "least"),
    [("kernel-distance", 4, 5), ("precision-recall", 4, 5), ("frechet", 1, 2)],
)
def test_too_few_images_are_told_in_the_plan(tiny_suite, capsys, metric, images, least):
    """Not after hours of sampling, and never as an interval of infinite width."""
    if images >= 2:  # a suite has no fewer
        suite = str(tiny_suite(metrics=(metric,), images=images))
        assert 2 == main(["plan", suite])
        said = capsys.readouterr().err
        assert f"metric '{metric}' (tfq-bench==" in said
        assert "Raise 'images' under [sampling]" in said
    assert 0 == main(["plan", str(tiny_suite(metrics=(metric,), images=least))])
    out = capsys.readouterr().out
    assert ("covariance has rank 1 at most" in out) == (metric == "frechet")


def test_the_least_number_of_images_of_a_kernel_distance():
    """It is the first at which every resample of the interval holds two different images."""
    from tfq_bench.metrics.kernel_distance import LEAST
    from tfq_bench.stats.intervals import REPLICATES, bootstrap_counts

    def resamples_without_pairs(n):
        return int((bootstrap_counts(n, REPLICATES).max(axis=1) == n).sum())

    assert resamples_without_pairs(LEAST - 1) > 0
    assert all(resamples_without_pairs(n) == 0 for n in range(LEAST, 200))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_intervals_of_numbers_that_are_not_finite(bad):
    """There is none, and it is said; never one of infinite or unknown width."""
    from tfq_bench.stats import intervals

    for call in (
        lambda: intervals.normal_interval(1.0, [1.0, bad, 2.0]),
        lambda: intervals.normal_interval(bad, [1.0, 2.0]),
        lambda: intervals.mean_value(np.array([1.0, 2.0, bad])),
        lambda: intervals.median_interval([1.0, bad, 2.0]),
        lambda: intervals.jackknife_interval(1.0, [bad, 2.0]),
    ):
        with pytest.raises(MetricError, match="needs finite numbers"):
            call()


def test_psnr_of_equal_images_is_a_number():
    """An infinite ratio has the value that its definition names, and rules understand it."""
    from tfq_bench.metrics.paired import PSNR_CAP, psnr

    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    other = images.copy()
    other[1, 0, 0, 0] ^= 1
    one_level = 10 * math.log10(255**2 * images[0].size)
    assert psnr(images, other).tolist() == pytest.approx([PSNR_CAP, one_level, PSNR_CAP])
