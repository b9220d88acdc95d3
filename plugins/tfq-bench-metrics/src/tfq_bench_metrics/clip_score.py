"""CLIP score (arXiv:2104.08718): how well each image shows what its prompt asks for.

    s = 100 · max(cos(E_image, E_text), 0)      in [0, 100], higher is better

E are the projected features of a CLIP model. The paper scales by 2.5; tables about image
generation, and torchmetrics, scale by 100. torchmetrics clips the mean at 0 instead of each image's
score, which is the same number unless an image is worse than unrelated to its prompt.

Needs the extra `tfq-bench-metrics[clip]`, a CLIP model on disk, and a model that is `Prompted`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from tfq_bench.api import MetricDefinition, MetricError, MetricValue, Prompted, digest
from tfq_bench.metrics import feature_cosine, mean_over_images
from tfq_bench_metrics.clip_files import find_clip
from tfq_bench_metrics.clip_model import ClipModel, check_transformers

if TYPE_CHECKING:
    from tfq_bench.api import EvaluationInputs

__all__ = ["ClipScore", "clip_scores"]

SCALE = 100.0

log = logging.getLogger("tfq_bench.metrics")


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """float64 `[N]` in [0, 100] from projected features `[N, D]` of images and of their prompts."""
    scores: np.ndarray = SCALE * np.maximum(feature_cosine(images, texts), 0.0)
    return scores


class ClipScore:
    """`clip-score` of a model with prompts.

    Args:
        weights: folder of a CLIP model in transformers' format; empty to take `hub`.
        hub: its id on the Hugging Face hub, read from the local cache.

    Raises:
        AssetError: the CLIP model is not on this machine, or transformers is not installed; says
            how to get it. Nothing is downloaded.
    """

    def __init__(self, *, weights: str, hub: str) -> None:
        check_transformers()
        self._files = find_clip(weights, hub)

    names = ("clip-score",)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Mean over images, with an interval and replicates that pair with other cells'.

        Raises:
            MetricError: the model's images have no prompts.
        """
        definition = MetricDefinition(
            name="clip-score",
            unit="",
            direction="higher",
            margin=0.1,
            summary="Mean of 100 times the cosine between an image and its prompt under CLIP.",
            parameters={
                "formula": 1,
                "scale": SCALE,
                "clip": self._files.digest,
                "images": "resized and cropped by PIL as the CLIP model's files say",
                "prompts": digest(_prompts(inputs), 64),
                "sampling": dict(inputs.sampling),
            },
        )
        return (mean_over_images(definition, self._scores(inputs), inputs),)

    @torch.no_grad()
    def _scores(self, inputs: EvaluationInputs) -> np.ndarray:
        prompts = _prompts(inputs)
        once = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        network = ClipModel(self._files, device=inputs.loaded.device)
        if cut := network.truncated(list(once)):
            log.warning(
                "clip-score: %d of %d prompts are longer than the %d tokens that CLIP reads; their "
                "ends do not count",
                cut,
                len(once),
                network.tokens,
            )
        texts = network.text_features(list(once))
        rows = [once[prompt] for prompt in prompts]
        return clip_scores(network.image_features(inputs.images), texts[rows])


def _prompts(inputs: EvaluationInputs) -> list[str]:
    """One prompt an image."""
    model, count = inputs.loaded.model, len(inputs.images)
    prompts = model.prompts(range(count)) if isinstance(model, Prompted) else None
    if prompts is None:
        raise MetricError(
            "a CLIP score compares images with prompts, and this model's images have none; leave "
            "the metric 'clip-score' out, or take a model of text."
        )
    if len(prompts) != count:
        raise MetricError(
            f"{type(model).__name__}.prompts must give one prompt an image: expected {count}, "
            f"found {len(prompts)}."
        )
    return list(prompts)
