"""Inception Score: exp of the mean divergence of p(y|x) from p(y) (arXiv:1606.03498, section 4).

All images form one split; the usual mean over ten splits of 5,000 differs for small N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfq_bench.metrics.feature_metric import FeatureMetric
from tfq_bench.metrics.features import cell_logits
from tfq_bench.metrics.resampled import bootstrap_value
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["InceptionScore", "inception_scores"]


def inception_scores(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64 `[R]` in [1, K]: the score of each resample.

    Written as exp(H(mean p) - mean H(p)), which is the same and needs no quotient.

    Args:
        logits: `[N, K]`, finite.
        counts: integer `[R, N]`, how often resample r holds image i. Rows sum to N.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    share = counts / len(p)
    marginal = np.maximum(share @ p, np.finfo(np.float64).tiny)
    scores: np.ndarray = np.exp(
        -(marginal * np.log(marginal)).sum(axis=1) + share @ (p * log_p).sum(axis=1)
    )
    return scores


class InceptionScore(FeatureMetric):
    """`inception-score` with Inception, `is-efficientnet-lite0` with the extractor built in."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its one value."""
        return (self.name("inception-score", "is"),)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """The score with its bootstrap interval."""
        logits = cell_logits(inputs, self.extractor)
        definition = MetricDefinition(
            name=self.names[0],
            unit="",
            direction="higher",
            summary=f"Confidence and diversity of {self.extractor.name} class predictions, one "
            "split.",
            parameters=self.parameters(inputs, {"splits": 1}),
        )

        def scores(counts: np.ndarray) -> np.ndarray:
            return inception_scores(logits, counts)

        return (bootstrap_value(definition, scores, inputs, n=len(logits)),)
