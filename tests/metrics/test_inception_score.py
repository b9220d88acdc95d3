"""Inception score against cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from tfq_bench.metrics.inception_score import inception_scores


def test_confident_and_diverse_predictions_score_the_number_of_classes():
    """One certain image per class scores K, certain images of one class score 1."""
    logits = 1e3 * np.eye(5)
    counts = np.array([[1, 1, 1, 1, 1], [5, 0, 0, 0, 0]])
    assert pytest.approx(inception_scores(logits, counts)) == [5.0, 1.0]


def test_score_is_the_exponential_of_the_mean_divergence():
    """The entropies give the same as the quotient of the paper's formula."""
    logits = np.random.default_rng(0).normal(size=(12, 7)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
    assert [expected] == pytest.approx(inception_scores(logits, np.ones((1, 12))), rel=1e-12)


def test_counts_mean_repeated_images():
    """A resample scores what its images written out score."""
    logits = np.random.default_rng(1).normal(size=(4, 3))
    drawn = [0, 0, 2, 3]
    counts = np.bincount(drawn, minlength=4)[None]
    expected = inception_scores(logits[drawn], np.ones((1, 4)))
    assert expected == pytest.approx(inception_scores(logits, counts))


def test_offline_score_has_a_name_of_its_own(make_inputs, host_metric):
    """With the built-in extractor it is not called an Inception score."""
    (value,) = host_metric("inception-score").evaluate(make_inputs())
    assert value.definition.name == "is-efficientnet-lite0"
    assert 1.0 <= value.value <= 8.0
