"""The file of reference statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tfq_bench.errors import AssetError, MetricError
from tfq_bench.metrics.extractors import efficientnet_lite0
from tfq_bench.metrics.reference import ReferenceStatistics, reference_for


def test_file_keeps_what_was_computed(tmp_path):
    """Mean and covariance survive in full, the subset is evenly spaced and rounded to float16."""
    features = np.random.default_rng(0).random((5000, 12), dtype=np.float32)
    made = ReferenceStatistics.of(features, efficientnet_lite0(), {"data": "noise"})
    made.save(tmp_path / "r.safetensors")
    found = ReferenceStatistics.load(tmp_path / "r.safetensors")
    assert np.array_equal(made.mean, found.mean)
    np.testing.assert_allclose(np.cov(features, rowvar=False), found.covariance, rtol=1e-5)
    np.testing.assert_allclose(features[np.arange(2048) * 5000 // 2048], found.features, atol=1e-3)
    assert (found.n, dict(found.provenance)) == (5000, {"data": "noise"})


def test_other_file_is_refused(tmp_path):
    """Something that is no such file is named, with what to do."""
    path = tmp_path / "r.safetensors"
    path.write_bytes(b"not a tensor file at all")
    with pytest.raises(AssetError, match="expected a file of reference statistics"):
        ReferenceStatistics.load(path)


def test_statistics_of_another_extractor_are_refused(make_inputs, tmp_path):
    """Statistics under another resize say what differs instead of giving a wrong distance."""
    network = efficientnet_lite0()
    made = ReferenceStatistics.of(np.eye(4, dtype=np.float32), network, {})
    other = replace(made, protocol={**network.protocol, "resize": "nearest"})
    other.save(tmp_path / "r.safetensors")
    with pytest.raises(MetricError, match=r"another extractor .*\(resize differ\)"):
        reference_for(make_inputs(), network, str(tmp_path / "r.safetensors"))
