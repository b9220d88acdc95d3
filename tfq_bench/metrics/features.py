"""Features and class logits of a cell's images, computed once and shared by all metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tfq_bench.errors import MetricError
from tfq_bench.keys import digest

if TYPE_CHECKING:
    import numpy as np

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
        lambda: extractor.features(images, device=inputs.loaded.device),
        of=of,
    )


def cell_logits(inputs: EvaluationInputs, extractor: Extractor) -> np.ndarray:
    """float32 `[N, K]` class logits of the cell's images."""
    return inputs.cached(
        f"logits-{digest(dict(extractor.protocol), 12)}",
        lambda: extractor.logits(inputs.images, device=inputs.loaded.device),
        of="cell",
    )


def _images(inputs: EvaluationInputs, of: str) -> np.ndarray:
    if of == "cell":
        return inputs.images
    images = inputs.reference_images
    if images is None:
        raise MetricError("the full-precision cell has no reference images of its own.")
    return images
