"""The paired image grid: the same noise in every row, one cell in every column.

Rows are chosen by a rule that the caption states, never by hand; cells without a column are listed
with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfq_bench_reports.charts.png import SIDE, difference, gain_of, psnr, uri
from tfq_bench_reports.view.dedupe import Merged, merged, point
from tfq_bench_reports.view.types import CellView, RunView

if TYPE_CHECKING:
    from tfq_bench.store import RunFolder

__all__ = ["GridRow", "GridView", "LeftOut", "Picture", "chosen_rows", "grids"]

SHOWN = 96
"""Side in px at which images are displayed."""
FIRST = 3
_TOO_MANY = "left out to keep the file small"


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

    @property
    def size(self) -> int:
        """Bytes that its data URIs take."""
        return len(self.uri) + len(self.difference)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """One image index and why it is shown."""

    index: int
    why: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Cells without a column, and why."""

    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GridView:
    """The grid of one full-precision cell and all that are compared with it.

    Args:
        shown: how many of the cells have a column, in words.
        rows: empty when no cell has a column.
    """

    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    shown: str
    left_out: tuple[LeftOut, ...]
    caption: str
    gain: int


def grids(run: RunFolder, view: RunView, *, budget: int) -> tuple[GridView, ...]:
    """One grid per full-precision cell that other cells are compared with.

    Args:
        budget: bytes that all data URIs together may take; rows, then columns, that do not fit are
            left out.
    """
    full = [cell for cell in view.cells if not cell.quantized]
    found = []
    for reference in full:
        others = [cell for cell in view.cells if cell.reference == reference.key]
        if others:
            found.append(_grid(run, reference, others, budget // len(full)))
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


def _grid(run: RunFolder, reference: CellView, others: Sequence[CellView], budget: int) -> GridView:
    images = run.images(reference.key)
    pictures, absent = _comparable(run, reference, images, others)
    seeds: dict[str, str] = {}
    kept: list[CellView] = []
    first: dict[object, CellView] = {}
    for cell in others:
        if cell.key not in pictures:
            continue
        where = (point(cell, seed=False), cell.axes.get("backend"))
        shown = first.setdefault(where, cell)
        if shown is cell:
            kept.append(cell)
        else:
            seeds[cell.key] = f"seed {shown.axes.get('seed', '?')} of the same cell is shown"
    columns = list(merged(kept, lambda cell: hashlib.sha256(pictures[cell.key].tobytes()).digest()))
    reasons = absent | seeds
    if images is None or not columns:
        return _finished(reference, others, (), (), reasons, "", 1)
    psnrs = [psnr(pictures[some.lead.key], images) for some in columns]
    # Of a mean, infinity (all identical) is the best there is, so `argmin` is safe.
    guide = int(np.argmin([np.minimum(values, 200).mean() for values in psnrs]))
    chosen = chosen_rows(psnrs[guide])
    shown_pixels = [pictures[some.lead.key] for some in columns]
    gain = gain_of(
        [pixels[i] for pixels in shown_pixels for i, _ in chosen],
        [images[i] for _ in columns for i, _ in chosen],
    )
    rows: list[GridRow] = []
    width, spent = len(columns) + 1, 0
    for index, why in chosen:
        row = [
            Picture(uri=uri(images[index]), alt=f"Image {index} of {reference.name}"),
            *_pictures(index, images[index], columns, shown_pixels, psnrs, gain),
        ]
        if not rows:
            width = _fitting([picture.size for picture in row], budget)
        row = row[:width]
        size = sum(picture.size for picture in row)
        if spent + size > budget:
            break
        spent += size
        rows.append(GridRow(index=index, why=why, pictures=tuple(row)))
    stay = width - 1 if rows else 0
    reasons |= {cell.key: _TOO_MANY for some in columns[stay:] for cell in some.cells}
    left_out_rows = len(chosen) - len(rows) if rows else 0
    caption = _caption(columns[guide].name, gain, images.shape[1:3], left_out_rows)
    names = [some.name for some in columns[:stay]]
    return _finished(reference, others, names, rows, reasons, caption, gain)


def _finished(
    reference: CellView,
    others: Sequence[CellView],
    names: Sequence[str],
    rows: Sequence[GridRow],
    reasons: dict[str, str],
    caption: str,
    gain: int,
) -> GridView:
    grouped: dict[str, list[str]] = {}
    for cell in others:
        if cell.key in reasons:
            grouped.setdefault(reasons[cell.key], []).append(cell.name)
    count, total = len(others) - len(reasons), len(others)
    shown = f"{'All' if count == total else f'{count} of'} {total} quantized cells are shown"
    if count > len(names):
        shown += f" in {len(names)} columns: cells with identical images share one"
    return GridView(
        columns=(reference.name, *names) if rows else (),
        rows=tuple(rows),
        shown=f"{shown}.",
        left_out=tuple(LeftOut(names=tuple(who), reason=why) for why, who in grouped.items()),
        caption=caption if rows else "",
        gain=gain,
    )


def _comparable(
    run: RunFolder, reference: CellView, images: np.ndarray | None, others: Iterable[CellView]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Images that can be laid beside those of the reference, and why the others cannot, by key."""
    found: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    for cell in others:
        pictures = run.images(cell.key)
        if pictures is None:
            trouble = cell.trouble
            stage = f" at stage {trouble.stage}" if trouble is not None and trouble.stage else ""
            reasons[cell.key] = (
                "no images in the run folder"
                if trouble is None
                else f"no images: {trouble.status}{stage}"
            )
        elif images is None:
            reasons[cell.key] = f"{reference.name} has no images to compare with"
        elif pictures.shape != images.shape:
            reasons[cell.key] = f"{_shape(pictures)}, but {reference.name} has {_shape(images)}"
        else:
            found[cell.key] = pictures
    return found, reasons


def _shape(images: np.ndarray) -> str:
    number, height, width = images.shape[:3]
    return f"{number} images of {width} x {height} px"


def _fitting(sizes: Sequence[int], budget: int) -> int:
    """How many pictures of a row fit; a reference without any other is no comparison."""
    total = 0
    for number, size in enumerate(sizes):
        total += size
        if total > budget:
            return number if number > 1 else len(sizes)
    return len(sizes)


def _pictures(
    index: int,
    reference: np.ndarray,
    columns: Sequence[Merged],
    pixels: Sequence[np.ndarray],
    psnrs: Sequence[np.ndarray],
    gain: int,
) -> Iterable[Picture]:
    for some, images, decibels in zip(columns, pixels, psnrs, strict=True):
        identical = not np.isfinite(decibels[index])
        note = "identical" if identical else f"{decibels[index]:.1f} dB"
        yield Picture(
            uri=uri(images[index]),
            alt=f"Image {index} of {some.name}, "
            + ("identical to full precision" if identical else f"PSNR {note} to full precision"),
            difference=uri(difference(images[index], reference, gain)),
            difference_alt=f"Difference of image {index} of {some.name} to full precision, "
            f"{gain} times amplified",
            note=note,
        )


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
