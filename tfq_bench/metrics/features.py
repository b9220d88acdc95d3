"""Features and class logits of a cell's images, computed once and shared by all metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from tfq_bench.errors import MetricError
from tfq_bench.keys import digest

if TYPE_CHECKING:
    from tfq_bench.metrics.extractors import Extractor
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["cell_features", "cell_logits"]


def cell_features(
    inputs: EvaluationInputs, extractor: Extractor, *, of: Literal["cell", "reference"] = "cell"
) -> np.ndarray:
    """float32 `[N, D]`, row i of image i, of the cell or of its full-precision reference cell."""
    images = _images(inputs, of)
    return inputs.cached(
        f"features-{digest(dict(extractor.protocol), 12)}",
        lambda: _finite(extractor.features(images, device=inputs.loaded.device), extractor, of),
        of=of,
    )


def cell_logits(inputs: EvaluationInputs, extractor: Extractor) -> np.ndarray:
    """float32 `[N, K]` class logits of the cell's images."""
    return inputs.cached(
        f"logits-{digest(dict(extractor.protocol), 12)}",
        lambda: _finite(
            extractor.logits(inputs.images, device=inputs.loaded.device), extractor, "cell"
        ),
        of="cell",
    )


def _finite(rows: np.ndarray, extractor: Extractor, of: str) -> np.ndarray:
    """The rows; MetricError names the first image whose row is not finite."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))))
    if len(bad):
        owner = "the full-precision cell" if of == "reference" else "the cell"
        raise MetricError(
            f"the extractor '{extractor.name}' gives image {bad[0]} of {owner} features that are "
            f"not finite numbers ({len(bad)} of {len(rows)} images); nothing can be computed from "
            "them."
        )
    return rows


def _images(inputs: EvaluationInputs, of: str) -> np.ndarray:
    if of == "cell":
        return inputs.images
    images = inputs.reference_images
    if images is None:
        raise MetricError("the full-precision cell has no reference images of its own.")
    return images
