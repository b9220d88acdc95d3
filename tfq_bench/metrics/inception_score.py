"""Inception Score: exp of the mean divergence of p(y|x) from p(y) (arXiv:1606.03498, section 4).

All images form one split; the usual mean over ten splits of 5,000 differs for small N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfq_bench.border import MetricDefinition, MetricValue
from tfq_bench.metrics.extractors import extractor as extractor_of
from tfq_bench.metrics.features import cell_logits
from tfq_bench.stats.intervals import (
    REPLICATES,
    bootstrap_counts,
    normal_interval,
    resampling_id,
)

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


class InceptionScore:
    """`inception-score` with Inception, `is-efficientnet-lite0` with the extractor built in."""

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-lite0",
        inception_weights: str = "",
        inception_sha256: str = "",
        replicates: int = REPLICATES,
    ) -> None:
        self._extractor = extractor_of(
            extractor, inception_weights=inception_weights, inception_sha256=inception_sha256
        )
        self._replicates = replicates

    @property
    def names(self) -> tuple[str, ...]:
        """Of its one value."""
        return (_name(self._extractor.name),)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """The score with its bootstrap interval."""
        name = self._extractor.name
        definition = MetricDefinition(
            name=_name(name),
            unit="",
            direction="higher",
            summary=f"Confidence and diversity of {name} class predictions, one split.",
            parameters={
                "formula": 1,
                "splits": 1,
                "extractor": dict(self._extractor.protocol),
                "sampling": dict(inputs.sampling),
            },
        )
        logits = cell_logits(inputs, self._extractor)
        n = len(logits)
        sample = np.ones((1, n), dtype=np.int64)
        counts = np.concatenate([sample, bootstrap_counts(n, self._replicates)])
        value, *replicates = inception_scores(logits, counts).tolist()
        return (
            MetricValue(
                definition=definition,
                value=value,
                n=n,
                interval=normal_interval(value, replicates),
                replicates=tuple(replicates),
                pairing=resampling_id(inputs.pairing, n, self._replicates),
            ),
        )


def _name(extractor: str) -> str:
    return "inception-score" if extractor == "inception" else f"is-{extractor}"
