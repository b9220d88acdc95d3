"""The paired image grid: the same noise in every row, one cell in every column.

Rows are chosen by a rule that the caption states, never by hand.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfq_bench_reports.model import CellView, RunView

if TYPE_CHECKING:
    from tfq_bench.store.run import RunFolder

__all__ = ["GridRow", "GridView", "Picture", "chosen_rows", "grids"]

SIDE = 128
"""Largest side in px that is embedded; larger images are scaled down and the caption says so."""
SHOWN = 96
"""Side in px at which images are displayed."""
FIRST = 3
_PEAK = 255.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image and, unless it is the reference, what sets it apart.

    Args:
        uri, difference: PNG as a data URI; `difference` is empty for the reference.
    """

    uri: str
    alt: str
    difference: str = ""
    difference_alt: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """One image index and why it is shown."""

    index: int
    why: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridView:
    """The grid of one full-precision cell and all that are compared with it."""

    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    caption: str
    gain: int


def grids(run: RunFolder, view: RunView, *, budget: int) -> tuple[GridView, ...]:
    """One grid per full-precision cell with images.

    Args:
        budget: bytes that all data URIs together may take; rows that do not fit are left out.
    """
    found = []
    full = [cell for cell in view.cells if not cell.quantized]
    for reference in full:
        images = run.images(reference.key)
        others = [
            (cell, pictures)
            for cell in view.cells
            if cell.reference == reference.key
            and (pictures := run.images(cell.key)) is not None
            and images is not None
            and pictures.shape == images.shape
        ]
        if images is not None and others:
            found.append(_grid(reference, images, others, budget // len(full)))
    return tuple(found)


def chosen_rows(psnr: np.ndarray) -> list[tuple[int, str]]:
    """(index, reason) of the rows, the most telling first: worst two, median, first three.

    Args:
        psnr: float `[N]`, of the cell that the rule goes by.
    """
    order = np.argsort(psnr, kind="stable")
    wanted = [(int(i), "worst" if n == 0 else "second worst") for n, i in enumerate(order[:2])]
    wanted.append((int(order[(len(order) - 1) // 2]), "median"))
    wanted += [(index, "by index") for index in range(min(FIRST, len(psnr)))]
    rows: dict[int, str] = {}
    for index, why in wanted:
        rows.setdefault(index, why)
    return list(rows.items())


def _psnr(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64 `[N]`: dB of uint8 images; infinite where they are identical."""
    errors = ((images.astype(np.float64) - reference) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        decibels: np.ndarray = 10 * np.log10(_PEAK**2 / errors)
    return decibels


def _grid(
    reference: CellView,
    images: np.ndarray,
    others: Sequence[tuple[CellView, np.ndarray]],
    budget: int,
) -> GridView:
    psnrs = [_psnr(pictures, images) for _, pictures in others]
    # Of a mean, infinity (all identical) is the best there is, so `argmin` is safe.
    guide = int(np.argmin([np.minimum(values, 200).mean() for values in psnrs]))
    chosen = chosen_rows(psnrs[guide])
    gain = _gain(
        [pictures[i] for _, pictures in others for i, _ in chosen],
        [images[i] for _ in others for i, _ in chosen],
    )
    rows: list[GridRow] = []
    spent = 0
    for index, why in chosen:
        row = GridRow(
            index=index,
            why=why,
            pictures=(
                Picture(uri=_uri(images[index]), alt=f"Image {index} of {reference.name}"),
                *_pictures(index, images[index], others, psnrs, gain),
            ),
        )
        size = sum(len(picture.uri) + len(picture.difference) for picture in row.pictures)
        if spent + size > budget:
            break
        spent += size
        rows.append(row)
    return GridView(
        columns=(reference.name, *(cell.name for cell, _ in others)),
        rows=tuple(rows),
        caption=_caption(others[guide][0].name, gain, images.shape[1:3], len(chosen) - len(rows)),
        gain=gain,
    )


def _pictures(
    index: int,
    reference: np.ndarray,
    others: Sequence[tuple[CellView, np.ndarray]],
    psnrs: Sequence[np.ndarray],
    gain: int,
) -> Iterable[Picture]:
    for (cell, pictures), psnr in zip(others, psnrs, strict=True):
        identical = not np.isfinite(psnr[index])
        note = "identical" if identical else f"{psnr[index]:.1f} dB"
        yield Picture(
            uri=_uri(pictures[index]),
            alt=f"Image {index} of {cell.name}, "
            + ("identical to full precision" if identical else f"PSNR {note} to full precision"),
            difference=_uri(_difference(pictures[index], reference, gain)),
            difference_alt=f"Difference of image {index} of {cell.name} to full precision, "
            f"{gain} times amplified",
            note=note,
        )


def _difference(image: np.ndarray, reference: np.ndarray, gain: int) -> np.ndarray:
    """uint8 `[H, W]`: mean absolute difference over channels, amplified and clipped."""
    distance = np.abs(image.astype(np.int16) - reference.astype(np.int16)).mean(axis=-1)
    shown: np.ndarray = np.clip(np.rint(distance * gain), 0, _PEAK).astype(np.uint8)
    return shown


def _gain(images: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> int:
    """The largest of 1, 2, 4, ..., 32 at which 99% of the shown differences are not clipped."""
    distances = np.concatenate(
        [
            np.abs(a.astype(np.int16) - b.astype(np.int16)).mean(axis=-1).reshape(-1)
            for a, b in zip(images, references, strict=True)
        ]
    )
    top = float(np.quantile(distances, 0.99))
    return next((gain for gain in (32, 16, 8, 4, 2) if top * gain <= _PEAK), 1)


def _uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > SIDE:
        scale = SIDE / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _caption(guide: str, gain: int, shape: tuple[int, ...], left_out: int) -> str:
    height, width = shape
    parts = [
        "Every row starts from the same noise.",
        f"Rows: the two images with the lowest PSNR to full precision of {guide} (the cell with "
        f"the lowest mean), the median one, and the first {FIRST} indices.",
        f"Below each image: its absolute difference to full precision, {gain} times amplified, and "
        "its PSNR.",
    ]
    if max(height, width) > SIDE:
        parts.append(f"Images of {width} x {height} px are scaled down to {SIDE} px.")
    if left_out:
        parts.append(f"{left_out} more rows are left out to keep the file small.")
    return " ".join(parts)
