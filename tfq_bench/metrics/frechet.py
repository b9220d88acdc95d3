"""Fréchet distance between the features of a cell's images and of the reference set.

    d² = |μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½                (arXiv:1706.08500, section 2)

The last term is the sum of the square roots of the eigenvalues of `S Σ₂ S` with the symmetric root
`S = Σ₁^½`: that matrix is symmetric, so its eigenvalues are real, cheap and stable, while the root
of the product `Σ₁ Σ₂` needs a general solver (65 times slower at 2048 features). With fewer images
than features the same eigenvalues come from the Gram matrix of the images, which is smaller still.

The distance is biased upward by about c/N; numbers of different N are never compared.
"""

from __future__ import annotations

from functools import lru_cache
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

LEAST = 2
"""Images: the covariance divides by n - 1."""

__all__ = ["Frechet", "frechet_distance", "frechet_replicates", "symmetric_root"]


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Squared Fréchet distance of two Gaussians, as FID counts it.

    Args:
        mean1, mean2: `[D]`. covariance1, covariance2: `[D, D]`, symmetric, positive semidefinite.
    """
    c1, c2 = (torch.as_tensor(np.asarray(c, np.float64)) for c in (covariance1, covariance2))
    root = symmetric_root(c1)
    offset = np.asarray(mean1, np.float64) - np.asarray(mean2, np.float64)
    cross = _root_trace(root @ c2 @ root)
    return float(offset @ offset + float(c1.trace() + c2.trace()) - 2 * cross)


def symmetric_root(matrix: Tensor) -> Tensor:
    """The symmetric S with S·S = matrix, float64 `[D, D]`; negative rounding errors count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def frechet_replicates(
    features: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    counts: np.ndarray,
    *,
    device: str,
) -> np.ndarray:
    """float64 `[R]`: the distance of each resample of the features to a reference Gaussian.

    Args:
        features: float32 `[N, D]`. mean: `[D]`. covariance: `[D, D]`.
        counts: integer `[R, N]`, how often resample r holds image i; a row of ones is the sample
            itself. Rows sum to N.
    """
    # Offsets from the reference mean keep the squares small, so float64 loses nothing.
    x = torch.tensor(features, device=device).double() - torch.tensor(mean, device=device)
    reference = torch.tensor(covariance, device=device)
    exact = np.asarray(covariance, np.float64)
    projected = x @ _root_of(exact.tobytes(), len(exact), device)
    trace = float(reference.trace())
    n, width = x.shape
    squares = (x * x).sum(dim=1)
    gram = projected @ projected.T if n < width else None
    found = []
    for row in torch.as_tensor(counts, device=device).double():
        share = row / n
        offset = share @ x
        distance = float(offset @ offset)
        spread = float((row @ squares - n * (offset @ offset)) / (n - 1))
        # Images drawn repeatedly are one row of larger weight: same eigenvalues, smaller matrix.
        drawn = row.nonzero()[:, 0]
        weight = (row[drawn] / (n - 1)).sqrt()
        if gram is not None:
            inner = _centred_gram(gram, share, drawn) * weight[:, None] * weight
        else:
            rows = (projected[drawn] - share @ projected) * weight[:, None]
            inner = rows.T @ rows if len(drawn) >= width else rows @ rows.T
        found.append(distance + spread + trace - 2 * _root_trace(inner))
    return np.array(found)


@lru_cache(maxsize=1)
def _root_of(covariance: bytes, width: int, device: str) -> Tensor:
    """`symmetric_root` of a float64 covariance `[width, width]`: every cell has the same one."""
    values = torch.frombuffer(bytearray(covariance), dtype=torch.float64)
    return symmetric_root(values.reshape(width, width).to(device))


def _centred_gram(gram: Tensor, share: Tensor, drawn: Tensor) -> Tensor:
    """Inner products of the drawn rows after subtracting the mean that `share` weighs."""
    with_mean = gram @ share
    inner = gram[drawn][:, drawn]
    return inner - with_mean[drawn][:, None] - with_mean[drawn] + share @ with_mean


def _root_trace(matrix: Tensor) -> float:
    """Sum of the roots of a positive semidefinite matrix's eigenvalues."""
    return float(torch.linalg.eigvalsh(matrix).clamp_min(0).sqrt().sum())


class Frechet(FeatureMetric):
    """`fid` with the Inception extractor, `fd-efficientnet-lite0` with the one that is built in."""

    def __init__(self, *, reference: str, replicates: int, **extractor: str) -> None:
        super().__init__(**extractor)
        self._reference = reference
        self._replicates = replicates

    @property
    def names(self) -> tuple[str, ...]:
        """Of its one value."""
        return (self.name("fid", "fd"),)

    def check(self, *, images: int) -> str:
        """A caution below as many images as features; MetricError below two images."""
        if images < LEAST:
            raise MetricError(f"a Fréchet distance needs at least {LEAST} images, found {images}.")
        if images > self.extractor.width:
            return ""
        return (
            f"{images} images for {self.extractor.width} features: their covariance has rank "
            f"{images - 1} at most, which moves the distance up. Compare cells of this N only."
        )

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """The distance with its bootstrap interval; MetricError with fewer than two images."""
        reference = reference_for(inputs, self.extractor, self._reference)
        features = cell_features(inputs, self.extractor)
        self.check(images=len(features))
        definition = MetricDefinition(
            name=self.names[0],
            unit="",
            direction="lower",
            summary=f"Fréchet distance of {self.extractor.name} features to the reference set.",
            parameters=self.parameters(inputs, {}, reference, reference.n),
        )

        def distances(counts: np.ndarray) -> np.ndarray:
            return frechet_replicates(
                features, reference.mean, reference.covariance, counts, device=inputs.loaded.device
            )

        replicates = self._replicates
        return (
            bootstrap_value(definition, distances, inputs, n=len(features), replicates=replicates),
        )
