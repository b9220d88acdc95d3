"""What the host's metrics of image features share: the extractor, names and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfq_bench.metrics.extractors import extractor as extractor_of

if TYPE_CHECKING:
    from tfq_bench.metrics.reference import ReferenceStatistics
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["FeatureMetric"]


class FeatureMetric:
    """A metric of the features, or class logits, that an extractor sees in images.

    Args:
        extractor, inception_weights, inception_sha256: see `extractors.extractor`.

    Raises:
        AssetError: the extractor's weights are missing or have another digest.
    """

    def __init__(self, *, extractor: str, inception_weights: str, inception_sha256: str) -> None:
        self.extractor = extractor_of(
            extractor, inception_weights=inception_weights, inception_sha256=inception_sha256
        )

    def name(self, published: str, short: str) -> str:
        """`published` with the Inception network that defines that number, else a name apart."""
        own = self.extractor.name
        return published if own == "inception" else f"{short}-{own}"

    def parameters(
        self,
        inputs: EvaluationInputs,
        own: Mapping[str, Any],
        reference: ReferenceStatistics | None = None,
        reference_images: int = 0,
    ) -> dict[str, Any]:
        """Everything that a number of the features of these images depends on.

        Args:
            own: the metric's.
            reference: what is compared with. reference_images: how many of its images count.
        """
        compared = {}
        if reference is not None:
            compared = {"reference": reference.digest, "reference_images": reference_images}
        return {
            "formula": 1,
            **own,
            "extractor": dict(self.extractor.protocol),
            **compared,
            "sampling": dict(inputs.sampling),
        }
