"""Kernel distance: unbiased squared MMD with the cubic kernel of arXiv:1801.01401, section 4.

    k(x, y) = (x·y / D + 1)³
    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j)

All images against the whole reference subset, in one estimate; libraries average over random
subsets of 1,000 instead, which has the same expectation. Unbiased, so it may be negative.

A bootstrap replicate with counts w weighs the pair (i, j) by w_i w_j and leaves out every pair of
an image with itself, also when it was drawn twice: k(x, x) is large and would be counted as
similarity of different images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tfq_bench.errors import MetricError
from tfq_bench.metrics.feature_metric import FeatureMetric
from tfq_bench.metrics.features import cell_features
from tfq_bench.metrics.reference import reference_for
from tfq_bench.metrics.resampled import bootstrap_value
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.protocols import EvaluationInputs

__all__ = ["KernelDistance", "kernel_distances"]

BLOCK = 2048
"""Rows of a kernel matrix held at a time."""
LEAST = 5
"""Images: below it some of the 200 resamples are one image throughout, and have no pairs."""


def kernel_distances(
    features: np.ndarray, reference: np.ndarray, counts: np.ndarray, *, device: str
) -> np.ndarray:
    """float64 `[R]`: the squared MMD of each resample of the features to the reference features.

    Args:
        features: `[N, D]`. reference: `[M, D]`.
        counts: integer `[R, N]`, how often resample r holds image i; a row of ones is the sample
            itself. Rows sum to N.
    """
    x, y, w = (
        torch.as_tensor(np.asarray(a, np.float64), device=device)
        for a in (features, reference, counts)
    )
    n, m = len(x), len(y)
    within = torch.zeros(len(w), dtype=torch.float64, device=device)
    across = torch.zeros_like(within)
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        kernel = _kernel(x[rows], x)
        kernel[:, rows].fill_diagonal_(0)
        within += ((w[:, rows] @ kernel) * w).sum(dim=1)
        across += w[:, rows] @ _kernel(x[rows], y).mean(dim=1)
    pairs = n * n - (w * w).sum(dim=1)
    of_reference = _kernel(y, y)
    own = float((of_reference.sum() - of_reference.trace()) / (m * (m - 1)))
    return np.asarray((within / pairs + own - 2 * across / n).cpu())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


class KernelDistance(FeatureMetric):
    """`kid` with the Inception extractor, `kd-efficientnet-lite0` with the one built in."""

    def __init__(self, *, reference: str, **extractor: str) -> None:
        super().__init__(**extractor)
        self._reference = reference

    @property
    def names(self) -> tuple[str, ...]:
        """Of its one value."""
        return (self.name("kid", "kd"),)

    def check(self, *, images: int) -> str:
        """Nothing to say; MetricError below `LEAST` images."""
        if images < LEAST:
            raise MetricError(
                f"a kernel distance needs at least {LEAST} images, so that every resample behind "
                f"its interval has pairs, found {images}."
            )
        return ""

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """The distance with its bootstrap interval; MetricError with fewer than `LEAST` images."""
        reference = reference_for(inputs, self.extractor, self._reference)
        features = cell_features(inputs, self.extractor)
        self.check(images=len(features))
        own = {"kernel": "(x.y/D + 1)^3"}
        definition = MetricDefinition(
            name=self.names[0],
            unit="",
            direction="lower",
            summary=f"Unbiased squared MMD of {self.extractor.name} features to the reference "
            "subset.",
            parameters=self.parameters(inputs, own, reference, len(reference.features)),
        )

        def distances(counts: np.ndarray) -> np.ndarray:
            return kernel_distances(
                features, reference.features, counts, device=inputs.loaded.device
            )

        return (bootstrap_value(definition, distances, inputs, n=len(features)),)
