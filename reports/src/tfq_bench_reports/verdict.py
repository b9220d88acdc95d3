"""The verdict in words. Cautious: an interval that includes zero is no difference.

Every sentence rests on numbers that stand in the tables below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tfq_bench_reports import formatting
from tfq_bench_reports.headline import Headline, headline
from tfq_bench_reports.model import CellView, RunView
from tfq_bench_reports.compared import SAME, compare

__all__ = ["SMALL_N", "Point", "verdict"]

SMALL_N = 5000
"""Images below which a distribution distance is too biased to be read as a quality of its own."""

Kind = Literal["quality", "speed", "size", "trouble", "caution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One statement: a heading of a few words, and sentences."""

    kind: Kind
    title: str
    text: str


def verdict(run: RunView) -> tuple[Point, ...]:
    """What a reader should know before looking at any table."""
    points: list[Point] = []
    groups = list(dict.fromkeys(cell.group for cell in run.cells))
    for group in groups:
        cells = [cell for cell in run.cells if cell.group == group]
        prefix = f"{cells[0].label.partition(' / ')[0]}: " if len(groups) > 1 else ""
        points += [
            Point(kind=point.kind, title=prefix + point.title, text=point.text)
            for point in _group(cells)
        ]
    return (*points, *_trouble(run), *_cautions(run))


def _group(cells: Sequence[CellView]) -> Iterable[Point]:
    names = headline(cells)
    quantized = [cell for cell in cells if cell.quantized]
    if names.paired:
        yield from _closest(quantized, names.paired)
    if names.quality:
        yield from _quality(cells, quantized, names.quality)
    yield from _speed(quantized, names)
    if names.size:
        yield from _size(cells, quantized, names.size)


def _closest(quantized: Sequence[CellView], name: str) -> Iterable[Point]:
    """The cell closest to full precision, and those that cannot be told from it."""
    ranked = _ranked(quantized, name)
    if not ranked:
        return
    best = ranked[0]
    value = best.metrics[name]
    ties, clear = [], []
    for cell in ranked[1:]:
        word = compare(cell.metrics[name], value).word
        if word in (SAME, "equal"):
            ties.append(cell.name)
        elif word == "worse":
            clear.append(cell)
    text = f"{best.name} comes closest to full precision: {_amount(best, name)}."
    if ties:
        text += f" {_listing(ties)} cannot be told from it."
    if clear:
        text += f" {clear[-1].name} is furthest away: {_amount(clear[-1], name)}."
    yield Point(kind="quality", title="Closest to full precision", text=text)


def _quality(
    cells: Sequence[CellView], quantized: Sequence[CellView], name: str
) -> Iterable[Point]:
    by_key = {cell.key: cell for cell in cells}
    said: dict[str, list[str]] = {}
    for cell in quantized:
        reference = by_key.get(cell.reference or "")
        if name not in cell.metrics or reference is None or name not in reference.metrics:
            continue
        found = compare(cell.metrics[name], reference.metrics[name])
        change = f"{found.text} {found.span}" if found.span.startswith("±") else found.text
        said.setdefault(found.word, []).append(
            cell.name if found.word in (SAME, "equal") else f"{cell.name} {change}"
        )
    parts = [
        f"{word.capitalize()} than full precision: {'; '.join(said[word])}."
        for word in ("better", "worse")
        if word in said
    ]
    same = said.get(SAME, []) + said.get("equal", [])
    if same:
        parts.append(f"No measurable difference from full precision: {_listing(same)}.")
    rest = [n for word, n in said.items() if word not in ("better", "worse", SAME, "equal")]
    if rest:
        flat = [entry for entries in rest for entry in entries]
        parts.append(f"Difference without a known interval: {'; '.join(flat)}.")
    if parts:
        yield Point(kind="quality", title=f"Image quality ({name})", text=" ".join(parts))


def _speed(quantized: Sequence[CellView], names: Headline) -> Iterable[Point]:
    lowered = [cell for cell in quantized if cell.execution == "lowered"]
    name = names.speedup
    timed = _ranked(lowered, name) if name else []
    if timed and name:
        faster: list[str] = []
        slower: list[str] = []
        same: list[str] = []
        for cell in timed:
            value = cell.metrics[name]
            amount = f"{cell.name} {_amount(cell, name)}"
            if value.interval is None or value.interval.low <= 1 <= value.interval.high:
                same.append(cell.name)
            else:
                (faster if value.value > 1 else slower).append(amount)
        parts = []
        if faster:
            parts.append(f"Faster than full precision in the same process: {'; '.join(faster)}.")
        if slower:
            parts.append(f"Slower: {'; '.join(slower)}.")
        if same:
            parts.append(f"No measurable difference in speed: {_listing(same)}.")
        parts.append(f"How: {timed[0].metrics[name].definition.summary}")
        yield Point(kind="speed", title="Speed", text=" ".join(parts))
    elif quantized and not lowered:
        yield Point(
            kind="speed",
            title="Speed",
            text="Nothing can be said: every quantized cell is simulated, and simulations are "
            "not timed.",
        )


def _size(cells: Sequence[CellView], quantized: Sequence[CellView], name: str) -> Iterable[Point]:
    full = next((c for c in cells if not c.quantized and name in c.metrics), None)
    sized = [cell for cell in quantized if name in cell.metrics]
    if full is None or not sized:
        return
    before = full.metrics[name].value
    by_size: dict[float, list[str]] = {}
    for cell in sized:
        by_size.setdefault(cell.metrics[name].value, []).append(cell.name)
    parts = [
        f"{_listing(who)}: {formatting.quantity(size, 'bytes')}"
        + (f", {formatting.ratio(before / size)} times smaller" if 0 < size < before else "")
        for size, who in sorted(by_size.items())
    ]
    yield Point(
        kind="size",
        title="Size",
        text=f"Full precision takes {formatting.quantity(before, 'bytes')}. {'; '.join(parts)}.",
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
                f"{_sentence(cell.trouble.reason)}"
                for cell in cells
                if cell.trouble is not None
            )
            yield Point(kind="trouble", title=f"{count} {words}", text=text)


def _cautions(run: RunView) -> Iterable[Point]:
    names = headline(run.cells)
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
            text=f"Could not be computed: {_listing(bad)}.",
        )


def _ranked(cells: Iterable[CellView], name: str) -> list[CellView]:
    """Cells that have the metric, best first; ties in plan order."""
    having = [c for c in cells if name in c.metrics and math.isfinite(c.metrics[name].value)]
    if not having:
        return []
    higher = having[0].metrics[name].definition.direction == "higher"
    return sorted(having, key=lambda c: -c.metrics[name].value if higher else c.metrics[name].value)


def _amount(cell: CellView, name: str) -> str:
    value = cell.metrics[name]
    unit = value.definition.unit
    factor, unit_text = formatting.scaled(unit)
    spread = None if value.interval is None else (value.interval.high - value.interval.low) / 2
    text = formatting.number(value.value * factor, None if spread is None else spread * factor)
    around = formatting.around(value.value, value.interval, factor)
    if unit == "x":
        return f"{text}{formatting.TIMES}" + (f" ({around})" if around else "")
    around = f" {around}" if around.startswith("±") else f" ({around})" if around else ""
    return f"{name} {text}{around} {unit_text}".rstrip()


def _listing(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
