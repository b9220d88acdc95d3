"""Improved precision and recall (arXiv:1904.06991, equation 1).

The manifold of a feature set is the union of balls around its points, each as large as the
distance to its k-th nearest neighbour. Precision: share of the cell's images inside the manifold of
the reference. Recall: share of the reference subset inside the cell's. Recall grows with N.

A bootstrap would repeat images, and a repeated image has a ball of radius zero; the interval of
recall is therefore a jackknife over groups of images, and recall has no replicates to pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tfq_bench.errors import MetricError
from tfq_bench.metrics.feature_metric import FeatureMetric
from tfq_bench.metrics.features import cell_features
from tfq_bench.metrics.reference import reference_for
from tfq_bench.metrics.resampled import mean_over_images
from tfq_bench.stats.intervals import jackknife_interval
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.protocols import EvaluationInputs

__all__ = ["PrecisionRecall", "covered", "neighbour_radii"]

BLOCK = 1024
"""Rows of a distance matrix held at a time."""
GROUPS = 20


def neighbour_radii(points: Tensor, k: int, kept: Tensor) -> Tensor:
    """float64 `[G, N]`: squared distance of each point to its k-th nearest other kept point.

    Args:
        points: float64 `[N, D]`.
        kept: bool `[G, N]`, which points exist in selection g; the others get radius -1, which
            covers nothing.
    """
    radii = torch.full(kept.shape, -1.0, dtype=torch.float64, device=points.device)
    for start in range(0, len(points), BLOCK):
        rows = slice(start, min(start + BLOCK, len(points)))
        squares = _squared_distances(points[rows], points)
        squares[:, rows].fill_diagonal_(torch.inf)
        for selection in range(len(kept)):
            nearest = squares[:, kept[selection]].topk(k, dim=1, largest=False).values[:, -1]
            radii[selection, rows] = torch.where(kept[selection, rows], nearest, -1.0)
    return radii


def covered(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether each point lies in a ball of selection g, bool `[G, P]`.

    Args:
        points: float64 `[P, D]`. centres: float64 `[N, D]`. radii: squared, `[G, N]`.
    """
    found = []
    for start in range(0, len(points), BLOCK):
        squares = _squared_distances(points[start : start + BLOCK], centres)
        found.append(torch.stack([(squares <= radius).any(dim=1) for radius in radii]))
    return torch.cat(found, dim=1)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    products = (a * a).sum(dim=1)[:, None] + (b * b).sum(dim=1) - 2 * a @ b.T
    return products.clamp_min(0)


class PrecisionRecall(FeatureMetric):
    """`precision-…` and `recall-…`, named after the extractor."""

    def __init__(self, *, reference: str, k: int, **extractor: str) -> None:
        super().__init__(**extractor)
        self._reference = reference
        self._k = k

    @property
    def names(self) -> tuple[str, ...]:
        """Precision, recall."""
        return (f"precision-{self.extractor.name}", f"recall-{self.extractor.name}")

    def check(self, *, images: int) -> str:
        """Nothing to say; MetricError when there are too few images for k neighbours."""
        smallest = images - -(-images // min(GROUPS, images))  # without the largest group
        if smallest <= self._k:
            raise MetricError(
                f"{self._k} nearest neighbours need more than {self._k} images in every part, "
                f"found {smallest} of {images} without the largest group of the jackknife."
            )
        return ""

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Both shares in [0, 1]; MetricError when there are too few images for k neighbours."""
        reference = reference_for(inputs, self.extractor, self._reference)
        features = cell_features(inputs, self.extractor)
        n, k = len(features), self._k
        groups = min(GROUPS, n)
        self.check(images=n)
        if len(reference.features) <= k:
            raise MetricError(
                f"{k} nearest neighbours need more than {k} images in every part, found "
                f"{len(reference.features)} of the reference."
            )
        x, y = (
            torch.as_tensor(np.asarray(a, np.float64), device=inputs.loaded.device)
            for a in (features, reference.features)
        )
        everything = torch.ones((1, len(y)), dtype=torch.bool, device=x.device)
        inside = covered(x, y, neighbour_radii(y, k, everything))[0]
        # Selection 0 keeps every image, selection g + 1 leaves group g out.
        member = torch.arange(n, device=x.device) % groups
        kept = torch.arange(-1, groups, device=x.device)[:, None] != member
        found, *without = covered(y, x, neighbour_radii(x, k, kept)).double().mean(dim=1).tolist()
        name = self.extractor.name
        parameters = self.parameters(inputs, {"k": k}, reference, len(reference.features))
        return (
            mean_over_images(
                MetricDefinition(
                    name=f"precision-{name}",
                    unit="",
                    direction="higher",
                    margin=0.01,
                    summary=f"Share of images near the reference set's {name} features.",
                    parameters=parameters,
                ),
                inside.double().cpu().numpy(),
                inputs,
            ),
            MetricValue(
                definition=MetricDefinition(
                    name=f"recall-{name}",
                    unit="",
                    direction="higher",
                    margin=0.01,
                    summary=f"Share of reference images near the cell's {name} features.",
                    parameters=parameters,
                ),
                value=found,
                n=n,
                interval=jackknife_interval(found, without),
            ),
        )
