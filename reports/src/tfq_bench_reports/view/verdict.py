"""The verdict in words. Cautious: an interval that includes zero is no difference.

Every sentence rests on numbers that stand in the tables below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tfq_bench_reports.view.contestants import contestants
from tfq_bench_reports.view.findings import Point, findings, listing
from tfq_bench_reports.view.key_metrics import key_metrics
from tfq_bench_reports.view.model_groups import model_groups
from tfq_bench_reports.view.types import CellView, RunView, Trouble

__all__ = ["SMALL_N", "Point", "verdict"]

SMALL_N = 5000
"""Images below which a distribution distance is too biased to be read as a quality of its own."""


def verdict(run: RunView) -> tuple[Point, ...]:
    """What a reader should know before looking at any table; models are never ranked together."""
    points: list[Point] = list(_broken(run))
    groups = model_groups(run.cells)
    for group in groups:
        if any(cell.broken for cell in group.cells if not cell.quantized):
            continue  # against broken images nothing is close or far
        prefix = f"{group.name}: " if len(groups) > 1 else ""
        points += [
            Point(kind=point.kind, title=prefix + point.title, text=point.text)
            for point in (*findings(group.cells), *contestants(group.cells))
        ]
    return (*points, *_trouble(run), *_cautions(run))


def _broken(run: RunView) -> Iterable[Point]:
    cells = [cell for cell in run.cells if cell.broken]
    if cells:
        count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        yield Point(
            kind="trouble",
            title=f"Broken images in {count}",
            text=" ".join(f"{cell.name}: {_sentence(cell.broken)}" for cell in cells),
        )


def _trouble(run: RunView) -> Iterable[Point]:
    titles = {
        "failed": "failed",
        "partial": "finished in part",
        "skipped": "skipped",
        "not run": "not run",
    }
    for status, words in titles.items():
        cells = [cell for cell in run.cells if cell.status == status]
        if cells:
            count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
            text = " ".join(
                f"{cell.name}{f', stage {cell.trouble.stage}' if cell.trouble.stage else ''}: "
                f"{_sentence(_news(cell, cell.trouble))}"
                for cell in cells
                if cell.trouble is not None
            )
            yield Point(kind="trouble", title=f"{count} {words}", text=text)


def _news(cell: CellView, trouble: Trouble) -> str:
    """The reasons but for broken images, which the verdict begins with."""
    return (trouble.besides or "broken images, as said above") if cell.broken else trouble.reason


def _cautions(run: RunView) -> Iterable[Point]:
    names = key_metrics(run.cells)
    name = names.quality
    counts = sorted({cell.metrics[name].n for cell in run.cells if name and name in cell.metrics})
    if counts and counts[0] < SMALL_N:
        yield Point(
            kind="caution",
            title="Few images",
            text=f"Distances to the reference set rest on {counts[0]} images. At that number they "
            "are biased upward and wide, and must not be compared with published figures. "
            "Differences between cells, which share their noise image by image, are safer.",
        )
    if any(cell.quantized for cell in run.cells) and all(cell.quantized for cell in run.cells):
        yield Point(
            kind="caution",
            title="No full-precision cell",
            text="The run has nothing to compare with, so the tables have no deltas.",
        )
    bad = [
        f"{metric} of {cell.name}"
        for cell in run.cells
        for metric, value in sorted(cell.metrics.items())
        if not math.isfinite(value.value)
    ]
    if bad:
        yield Point(
            kind="caution",
            title="Not a finite number",
            text=f"Could not be computed: {listing(bad)}.",
        )


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
