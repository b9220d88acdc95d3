"""Kernel distance against its definition and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from tfq_bench.metrics import kernel_distance
from tfq_bench.metrics.kernel_distance import kernel_distances


def _features(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)) + shift


def test_distance_agrees_with_torchmetrics(monkeypatch):
    """Equal numbers of features give torchmetrics' unbiased estimate, in blocks or at once."""
    x, y = _features(0, 30), _features(1, 30, 0.5)
    expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    ones = np.ones((1, 30))
    assert [expected] == pytest.approx(kernel_distances(x, y, ones, device="cpu"), rel=1e-9)
    monkeypatch.setattr(kernel_distance, "BLOCK", 7)
    assert [expected] == pytest.approx(kernel_distances(x, y, ones, device="cpu"), rel=1e-9)


def test_replicate_leaves_out_pairs_of_an_image_with_itself():
    """A replicate is the sum over drawn pairs of different images, written as loops."""
    x, y = _features(2, 6), _features(3, 5)
    drawn = [0, 0, 1, 3, 3, 3]
    counts = np.bincount(drawn, minlength=6)[None]

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 8 + 1) ** 3)

    within = [kernel(x[i], x[j]) for i in drawn for j in drawn if i != j]
    own = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    across = [kernel(x[i], b) for i in drawn for b in y]
    expected = np.mean(within) + np.mean(own) - 2 * np.mean(across)
    assert [expected] == pytest.approx(kernel_distances(x, y, counts, device="cpu"), rel=1e-9)


def test_bootstrap_is_not_shifted_by_repeated_images():
    """The mean of the replicates lies on the estimate, within a fraction of their spread."""
    from tfq_bench.stats.intervals import bootstrap_counts

    x, y = _features(4, 60), _features(5, 80)
    (value,) = kernel_distances(x, y, np.ones((1, 60)), device="cpu")
    replicates = kernel_distances(x, y, bootstrap_counts(60, 500), device="cpu")
    assert abs(replicates.mean() - value) < 0.25 * replicates.std()


def test_metric_is_named_after_the_extractor(with_reference, host_metric):
    """The offline distance is never called KID and depends on the reference file."""
    (value,) = host_metric("kernel-distance").evaluate(with_reference)
    assert value.definition.name == "kd-efficientnet-lite0"
    assert len(value.definition.parameters["reference"]) == 64
    assert value.interval.low < value.value < value.interval.high
