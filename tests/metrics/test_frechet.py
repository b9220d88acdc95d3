"""Fréchet distance against closed forms and libraries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from tfq_bench.errors import MetricError
from tfq_bench.keys import definition_id
from tfq_bench.metrics.frechet import frechet_distance, frechet_replicates


def _gaussian(seed: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(width, width)) / np.sqrt(width)
    return rng.normal(size=width), factor @ factor.T + 0.1 * np.eye(width)


def _of_sample(rows: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    return frechet_distance(rows.mean(axis=0), np.cov(rows, rowvar=False), mean, covariance)


def test_diagonal_gaussians_have_the_closed_form():
    """For commuting covariances the distance is that between means and between deviations."""
    mean1, mean2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    sigma1, sigma2 = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    expected = ((mean1 - mean2) ** 2).sum() + ((sigma1 - sigma2) ** 2).sum()
    found = frechet_distance(mean1, np.diag(sigma1**2), mean2, np.diag(sigma2**2))
    assert expected == pytest.approx(found, rel=1e-12)


def test_distance_agrees_with_matrix_square_root_and_torchmetrics():
    """The symmetric route gives what scipy's general root and torchmetrics give."""
    (mean1, cov1), (mean2, cov2) = _gaussian(0, 24), _gaussian(1, 24)
    found = frechet_distance(mean1, cov1, mean2, cov2)
    root = np.trace(scipy.linalg.sqrtm(cov1 @ cov2)).real
    expected = ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * root
    assert expected == pytest.approx(found, rel=1e-10)
    library = _compute_fid(*(torch.from_numpy(a) for a in (mean1, cov1, mean2, cov2)))
    assert float(library) == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize("n", [6, 16, 20, 60], ids=lambda n: f"{n} images of 16 features")
def test_replicates_equal_the_distance_of_really_repeated_images(n):
    """The Gram, the mixed and the covariance route agree with repeating rows by hand."""
    mean, covariance = _gaussian(2, 16)
    rng = np.random.default_rng(3)
    features = rng.normal(size=(n, 16)).astype(np.float32) + 1
    drawn = rng.integers(0, n, n)
    counts = np.stack([np.ones(n, dtype=np.int64), np.bincount(drawn, minlength=n)])
    found = frechet_replicates(features, mean, covariance, counts, device="cpu")
    rows = features.astype(np.float64)
    expected = [_of_sample(rows, mean, covariance), _of_sample(rows[drawn], mean, covariance)]
    # An eigenvalue that is 0 comes out as 1e-17 or so, and its root as 3e-9.
    assert expected == pytest.approx(found.tolist(), rel=1e-8)


def test_metric_gives_the_plain_distance_with_a_paired_interval(
    with_reference, reference_file, host_metric
):
    """The published value is the distance of all images, its interval is centred on it."""
    from tfq_bench.metrics.extractors import efficientnet_lite0
    from tfq_bench.metrics.reference import ReferenceStatistics

    (value,) = host_metric("frechet", replicates=20).evaluate(with_reference)
    reference = ReferenceStatistics.load(reference_file)
    rows = efficientnet_lite0().features(with_reference.images, device="cpu").astype(np.float64)
    expected = _of_sample(rows, reference.mean, reference.covariance)
    assert value.definition.name == "fd-efficientnet-lite0"
    assert expected == pytest.approx(value.value, rel=1e-6)
    assert pytest.approx(value.value) == (value.interval.low + value.interval.high) / 2
    assert (value.n, len(value.replicates)) == (8, 20)


def test_definition_changes_with_what_the_number_depends_on(with_reference, host_metric):
    """Another number of images is another definition; another interval is not."""
    ids = {
        definition_id(host_metric("frechet", replicates=count).evaluate(inputs)[0].definition)
        for count in (10, 20)
        for inputs in (
            with_reference,
            replace(with_reference, sampling={"images": 5, "sampler": {}, "seed": 0}),
        )
    }
    assert len(ids) == 2


def test_model_without_statistics_is_said_so(make_inputs, host_metric):
    """A model that ships no reference gives a sentence, not a number."""
    with pytest.raises(MetricError, match=r"no reference statistics .*'efficientnet-lite0'"):
        host_metric("frechet").evaluate(make_inputs())
