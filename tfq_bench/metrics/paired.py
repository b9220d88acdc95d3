"""Each image against the full-precision image of the same noise: PSNR, SSIM, feature cosine.

PSNR comes twice. A rounding error of the output layer moves every prediction the same way, and ends
as a colour cast over the whole image, which one bias per channel would take away again.
`psnr-centred` is PSNR without it: what is left is what such a correction cannot mend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfq_bench.metrics.extractors import efficientnet_lite0
from tfq_bench.metrics.features import cell_features
from tfq_bench.metrics.resampled import mean_over_images
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["PSNR_CAP", "Paired", "centred_psnr", "feature_cosine", "psnr", "ssim"]

PSNR_CAP = 100.0
"""dB of an image identical to its reference. One level in one value of a 32x32 image is 83 dB."""
SSIM_WINDOW = 11
BATCH = 64


def psnr(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: peak signal-to-noise ratio in dB of uint8 images, at most `PSNR_CAP`."""
    found = [_decibels(difference) for difference in _differences(images, reference)]
    return np.concatenate(found)


def centred_psnr(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: `psnr` without the mean shift of each image, uint8 `[N, H, W, 3]`.

    With d = image - reference and its mean over positions m, one number an image and channel, it
    rests on the squares of d - m: on the variance of the error instead of its mean square. A shift
    of part of the image, and what a cast loses where values end at 0 or 255, stays in.
    """
    found = [
        _decibels(difference - difference.mean(axis=(1, 2), keepdims=True))
        for difference in _differences(images, reference)
    ]
    return np.concatenate(found)


def ssim(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: structural similarity of uint8 images `[N, H, W, 3]` with H, W >= 11.

    Gaussian window of 11 pixels with sigma 1.5, mean over channels.
    """
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = []
    for start in range(0, len(images), BATCH):
        pair = (
            torch.from_numpy(np.array(a[start : start + BATCH])).permute(0, 3, 1, 2)
            for a in (images, reference)
        )
        mine, other = (pixels.float() for pixels in pair)
        similarity = structural_similarity_index_measure(
            mine,
            other,
            gaussian_kernel=True,
            sigma=1.5,
            kernel_size=SSIM_WINDOW,
            data_range=255.0,
            reduction="none",
        )
        assert isinstance(similarity, torch.Tensor), "no contrast map was asked for"
        found.append(similarity.double().numpy().reshape(-1))
    return np.concatenate(found)


def feature_cosine(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: cosine between the rows of two feature sets `[N, D]`."""
    a, b = features.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: np.ndarray = (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return cosines


class Paired:
    """`psnr`, `psnr-centred`, `feature-cosine` and `ssim` (images of 11 pixels and more).

    None for full precision itself.
    """

    def __init__(self) -> None:
        self._extractor = efficientnet_lite0()

    names = ("psnr", "psnr-centred", "feature-cosine", "ssim")

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Means over images; none for the full-precision cell."""
        reference = inputs.reference_images
        if reference is None:
            return ()
        images, cell = inputs.images, inputs.reference_cell
        shared = {"formula": 1, "against": "full precision", "sampling": dict(inputs.sampling)}
        values = [
            mean_over_images(
                MetricDefinition(
                    name="psnr",
                    unit="dB",
                    direction="higher",
                    margin=0.25,
                    summary="Mean PSNR against the full-precision image of the same noise.",
                    parameters={**shared, "peak": 255, "identical_images_dB": PSNR_CAP},
                ),
                psnr(images, reference),
                inputs,
                reference=cell,
            ),
            mean_over_images(
                MetricDefinition(
                    name="psnr-centred",
                    unit="dB",
                    direction="higher",
                    margin=0.25,
                    summary="Mean PSNR against the full-precision image of the same noise, the "
                    "mean difference of each image and channel taken out.",
                    parameters={
                        **shared,
                        "removed": "mean over positions of each image and channel",
                        "peak": 255,
                        "identical_images_dB": PSNR_CAP,
                    },
                ),
                centred_psnr(images, reference),
                inputs,
                reference=cell,
            ),
            mean_over_images(
                MetricDefinition(
                    name="feature-cosine",
                    unit="",
                    direction="higher",
                    margin=0.001,
                    summary="Mean cosine between features of an image and of its full-precision "
                    "twin.",
                    parameters={**shared, "extractor": dict(self._extractor.protocol)},
                ),
                feature_cosine(
                    cell_features(inputs, self._extractor),
                    cell_features(inputs, self._extractor, of="reference"),
                ),
                inputs,
                reference=cell,
            ),
        ]
        if min(images.shape[1:3]) >= SSIM_WINDOW:
            definition = MetricDefinition(
                name="ssim",
                unit="",
                direction="higher",
                margin=0.001,
                summary="Mean SSIM against the full-precision image of the same noise.",
                parameters={
                    **shared,
                    "window": f"gaussian {SSIM_WINDOW} sigma 1.5",
                    "data_range": 255,
                },
            )
            values.append(
                mean_over_images(definition, ssim(images, reference), inputs, reference=cell)
            )
        return tuple(values)


def _differences(images: np.ndarray, reference: np.ndarray) -> Iterator[np.ndarray]:
    """float64 `[B, H, W, 3]`, a few images at a time: 30,000 of 512 pixels would be 189 GB."""
    for start in range(0, len(images), BATCH):
        stop = start + BATCH
        yield images[start:stop].astype(np.float64) - reference[start:stop]


def _decibels(difference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: the peak over the mean square of each image's differences `[N, H, W, 3]`."""
    errors = (difference**2).mean(axis=(1, 2, 3))
    floor = 255.0**2 / 10 ** (PSNR_CAP / 10)
    decibels: np.ndarray = 10 * np.log10(255.0**2 / np.maximum(errors, floor))
    return decibels
