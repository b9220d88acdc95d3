"""The reference statistics that ship with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tfq_bench_cifar10
from tfq_bench.metrics import ReferenceStatistics, efficientnet_lite0
from tfq_bench_cifar10.reference import make_reference, split_distance

SHIPPED = (
    Path(tfq_bench_cifar10.__file__).parent / "weights" / "reference-efficientnet-lite0.safetensors"
)


def test_shipped_statistics_are_those_of_the_training_set():
    """The file describes 50,000 images under the extractor that is installed."""
    found = ReferenceStatistics.load(SHIPPED)
    assert dict(efficientnet_lite0().protocol) == dict(found.protocol)
    assert (found.n, found.features.shape) == (50_000, (2048, 1280))
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-4
    # The subset is part of the set: its mean is the set's, up to sampling.
    deviation = np.sqrt(np.diag(found.covariance) / 2048)
    assert np.abs(found.features.mean(axis=0) - found.mean).max() < 6 * deviation.max()
    assert len(found.provenance["data_sha256"]) == 64


def test_statistics_are_made_from_images():
    """Mean and provenance come from the given images and data."""
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    network = efficientnet_lite0()
    statistics, distance = make_reference(images, network, data_digest="d" * 64, device="cpu")
    features = network.features(images, device="cpu")
    np.testing.assert_allclose(features.mean(axis=0), statistics.mean, rtol=1e-5, atol=1e-6)
    assert statistics.provenance["data_sha256"] == "d" * 64
    assert split_distance(features) == pytest.approx(distance)


def test_split_distance_sees_a_difference_between_the_parts():
    """Shifting every fifth row by one moves the distance by the number of features."""
    features = np.random.default_rng(1).normal(size=(1000, 4)).astype(np.float32)
    same = split_distance(features)
    features[4::5] += 1
    assert same + 4 == pytest.approx(split_distance(features), abs=0.6)
