"""What metrics share: values with intervals, names and parameters of features."""

from __future__ import annotations

import numpy as np
import pytest

from tfq_bench.metrics.resampled import bootstrap_value, mean_over_images
from tfq_bench.stats.intervals import REPLICATES, bootstrap_counts, normal_interval, resampling_id
from tfq_bench.types import MetricDefinition

DEFINITION = MetricDefinition(name="x", unit="", direction="lower", summary="")


@pytest.mark.parametrize("replicates", [REPLICATES, 2, 0])
def test_the_sample_itself_comes_first(make_inputs, replicates):
    """The value is that of all images once; replicates follow the plan that all cells share."""
    seen = []

    def statistic(counts):
        seen.append(counts)
        return counts @ np.arange(5.0)

    inputs = make_inputs()
    value = bootstrap_value(DEFINITION, statistic, inputs, n=5, replicates=replicates)
    (counts,) = seen
    assert [1] * 5 == counts[0].tolist()
    plan = bootstrap_counts(5, replicates)
    np.testing.assert_array_equal(plan, counts[1:])
    expected = tuple((plan @ np.arange(5.0)).tolist())
    assert (10.0, 5, expected) == (value.value, value.n, value.replicates)
    assert normal_interval(10.0, expected) == value.interval
    assert resampling_id(inputs.pairing, 5, replicates) == value.pairing


def test_a_mean_and_a_bootstrap_of_the_same_images_pair(make_inputs):
    """Both resample by the same indices, and say so by one id."""
    rows, inputs = np.array([1.0, 4.0, 9.0]), make_inputs()
    mean = mean_over_images(DEFINITION, rows, inputs, reference="fp")
    other = bootstrap_value(DEFINITION, lambda counts: counts @ rows / 3, inputs, n=3)
    assert mean.pairing == other.pairing
    assert other.replicates == pytest.approx(mean.replicates, rel=1e-12)
    assert ("fp", None) == (mean.reference, other.reference)


@pytest.mark.parametrize(
    "name", ["frechet", "kernel-distance", "inception-score", "precision-recall"]
)
def test_only_metrics_that_compare_name_a_reference(name, host_metric, with_reference):
    """Everything a number depends on is in its parameters, and its name among `names`."""
    metric = host_metric(name)
    values = metric.evaluate(with_reference)
    assert metric.names == tuple(value.definition.name for value in values)
    for value in values:
        parameters = dict(value.definition.parameters)
        assert dict(metric.extractor.protocol) == parameters["extractor"]
        assert with_reference.sampling == parameters["sampling"]
        assert ("reference" in parameters) == (name != "inception-score")
