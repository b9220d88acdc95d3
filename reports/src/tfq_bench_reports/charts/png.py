"""Pixels to what a report embeds: PNG data URIs, difference maps, PSNR per image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["SIDE", "difference", "gain_of", "psnr", "uri"]

SIDE = 128
"""Largest side in px that is embedded; larger images are scaled down and the caption says so."""
_PEAK = 255.0


def psnr(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: dB of uint8 images; infinite where they are identical."""
    errors = ((images.astype(np.float64) - reference) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        decibels: np.ndarray = 10 * np.log10(_PEAK**2 / errors)
    return decibels


def difference(image: np.ndarray, reference: np.ndarray, gain: int) -> np.ndarray:
    """uint8 `[H, W]`: mean absolute difference over channels, amplified and clipped."""
    distance = np.abs(image.astype(np.int16) - reference.astype(np.int16)).mean(axis=-1)
    shown: np.ndarray = np.clip(np.rint(distance * gain), 0, _PEAK).astype(np.uint8)
    return shown


def gain_of(images: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> int:
    """The largest of 1, 2, 4, ..., 32 at which 99% of the shown differences are not clipped."""
    distances = np.concatenate(
        [
            np.abs(a.astype(np.int16) - b.astype(np.int16)).mean(axis=-1).reshape(-1)
            for a, b in zip(images, references, strict=True)
        ]
    )
    top = float(np.quantile(distances, 0.99))
    return next((gain for gain in (32, 16, 8, 4, 2) if top * gain <= _PEAK), 1)


def uri(pixels: np.ndarray) -> str:
    """A PNG of uint8 pixels `[H, W]` or `[H, W, 3]` as a data URI, `SIDE` px at most."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > SIDE:
        scale = SIDE / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
