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

from tfq_bench.border import MetricDefinition, MetricValue
from tfq_bench.errors import MetricError
from tfq_bench.metrics.extractors import extractor as extractor_of
from tfq_bench.metrics.features import cell_features
from tfq_bench.metrics.reference import reference_for
from tfq_bench.stats.intervals import (
    REPLICATES,
    bootstrap_counts,
    normal_interval,
    resampling_id,
)

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


class KernelDistance:
    """`kid` with the Inception extractor, `kd-efficientnet-lite0` with the one built in."""

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-lite0",
        inception_weights: str = "",
        inception_sha256: str = "",
        reference: str = "",
        replicates: int = REPLICATES,
    ) -> None:
        self._extractor = extractor_of(
            extractor, inception_weights=inception_weights, inception_sha256=inception_sha256
        )
        self._reference = reference
        self._replicates = replicates

    @property
    def names(self) -> tuple[str, ...]:
        """Of its one value."""
        return (_name(self._extractor.name),)

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
        reference = reference_for(inputs, self._extractor, self._reference)
        name = self._extractor.name
        definition = MetricDefinition(
            name=_name(name),
            unit="",
            direction="lower",
            summary=f"Unbiased squared MMD of {name} features to the reference subset.",
            parameters={
                "formula": 1,
                "kernel": "(x.y/D + 1)^3",
                "extractor": dict(self._extractor.protocol),
                "reference": reference.digest,
                "reference_images": len(reference.features),
                "sampling": dict(inputs.sampling),
            },
        )
        features = cell_features(inputs, self._extractor)
        n = len(features)
        self.check(images=n)
        sample = np.ones((1, n), dtype=np.int64)
        counts = np.concatenate([sample, bootstrap_counts(n, self._replicates)])
        value, *replicates = kernel_distances(
            features, reference.features, counts, device=inputs.loaded.device
        ).tolist()
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
    return "kid" if extractor == "inception" else f"kd-{extractor}"
