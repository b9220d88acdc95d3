"""What can be said about the cells of one model: closeness, quality, speed, size.

The findings go by the rows of the tables, so that cells of equal numbers and the seeds of one
cell are named once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tfq_bench_reports import formatting
from tfq_bench_reports.view.deltas import SAME, compare
from tfq_bench_reports.view.key_metrics import key_metrics
from tfq_bench_reports.view.rows import rows_of
from tfq_bench_reports.view.types import CellView, Row

__all__ = ["Point", "amount", "findings", "listing", "metric_rows"]

Kind = Literal["quality", "speed", "size", "trouble", "caution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One statement: a heading of a few words, and sentences."""

    kind: Kind
    title: str
    text: str


def findings(cells: Sequence[CellView]) -> Iterable[Point]:
    """What the numbers of one model say.

    Args:
        cells: of one model, so that they may be ranked; external ones are not, see `contestants`.
    """
    cells = [cell for cell in cells if cell.execution != "external"]
    names = key_metrics(cells)
    if names.paired:
        yield from _closest(_ranked(cells, names.paired), names.paired)
    if names.quality:
        yield from _quality(metric_rows(cells, names.quality), names.quality)
    yield from _speed(cells, names.speedup)
    if names.size:
        yield from _size(cells, names.size)


def listing(names: Sequence[str]) -> str:
    """`a, b and c`; with semicolons where a name has a comma of its own."""
    if len(names) < 2:
        return "".join(names)
    if any("," in name for name in names):
        return "; ".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _closest(ranked: Sequence[Row], name: str) -> Iterable[Point]:
    """The row closest to full precision, and those that cannot be told from it."""
    if not ranked:
        return
    best = ranked[0]
    ties, clear = [], []
    for row in ranked[1:]:
        word = _against(row, best, name)
        if word in (SAME, "equal"):
            ties.append(row.name)
        elif word == "worse":
            clear.append(row)
    average = " on average over its seeds" if _seeds(best, name) > 1 else ""
    text = f"{best.name} comes closest to full precision{average}: {amount(best, name)}."
    if ties:
        text += f" {listing(ties)} cannot be told from it."
    if any(_seeds(row, name) > 1 for row in ranked):
        text += " Where there are several seeds, ranges that overlap count as no difference."
    if clear:
        text += f" {clear[-1].name} is furthest away: {amount(clear[-1], name)}."
    yield Point(kind="quality", title="Closest to full precision", text=text)


def _against(row: Row, best: Row, name: str) -> str:
    """The word for a row beside the best one.

    With one seed each, their paired difference decides. With several, a single seed's interval says
    nothing about the next seed: then the ranges over seeds must not overlap.
    """
    mine, theirs = ([cell.metrics[name] for cell in _having(one, name)] for one in (row, best))
    if _seeds(row, name) == _seeds(best, name) == 1:
        return compare(mine[0], theirs[0]).word
    first, second = ([value.value for value in values] for values in (mine, theirs))
    apart = max(first) < min(second) or min(first) > max(second)
    return "worse" if apart else SAME


def _quality(rows: Iterable[Row], name: str) -> Iterable[Point]:
    said: dict[str, list[str]] = {}
    for row in rows:
        found = row.values[0].delta if row.values[0] is not None else None
        if found is None:
            continue
        span = found.span if found.span.startswith("±") or not found.span else f"({found.span})"
        change = f"{found.text} {span}".rstrip()
        known = found.agreed in ("better", "worse", SAME, "equal", "")
        said.setdefault(found.agreed if known else "unknown", []).append(
            row.name
            if found.agreed in (SAME, "equal")
            else f"{_title(row, name)} {change}"
            if found.agreed
            else f"{_title(row, name)} {change}, {found.word}"
        )
    parts = [
        f"{word.capitalize()} than full precision: {'; '.join(said[word])}."
        for word in ("better", "worse")
        if word in said
    ]
    same = said.get(SAME, []) + said.get("equal", [])
    if same:
        parts.append(f"No measurable difference from full precision: {listing(same)}.")
    if "" in said:
        parts.append(f"Depends on the seed: {'; '.join(said[''])}.")
    if "unknown" in said:
        parts.append(f"Difference without a known interval: {'; '.join(said['unknown'])}.")
    if parts:
        yield Point(kind="quality", title=f"Image quality ({name})", text=" ".join(parts))


def _speed(cells: Sequence[CellView], name: str | None) -> Iterable[Point]:
    lowered = [cell for cell in cells if cell.execution == "lowered"]
    timed = _ranked(lowered, name) if name else []
    if timed and name:
        said: dict[str, list[str]] = {}
        for row in timed:
            word = _pace(row, name)
            said.setdefault(word, []).append(
                row.name if word == "same" else f"{_title(row, name)} {amount(row, name)}"
            )
        parts = []
        if "faster" in said:
            listed = "; ".join(said["faster"])
            parts.append(f"Faster than full precision in the same process: {listed}.")
        if "slower" in said:
            parts.append(f"Slower: {'; '.join(said['slower'])}.")
        if "same" in said:
            parts.append(f"No measurable difference in speed: {listing(said['same'])}.")
        summary = _having(timed[0], name)[0].metrics[name].definition.summary
        parts.append(f"How: {summary}")
        yield Point(kind="speed", title="Speed", text=" ".join(parts))
    elif not lowered and any(cell.quantized for cell in cells):
        yield Point(
            kind="speed",
            title="Speed",
            text="Nothing can be said: every quantized cell is simulated, and simulations are "
            "not timed.",
        )


def _pace(row: Row, name: str) -> str:
    """`faster`, `slower`, or `same` when an interval includes one or the seeds disagree."""
    intervals = [cell.metrics[name].interval for cell in _having(row, name)]
    if all(interval is not None and interval.low > 1 for interval in intervals):
        return "faster"
    if all(interval is not None and interval.high < 1 for interval in intervals):
        return "slower"
    return "same"


def _size(cells: Sequence[CellView], name: str) -> Iterable[Point]:
    full = next((c for c in cells if not c.quantized and name in c.metrics), None)
    sized = metric_rows(cells, name)
    if full is None or not sized:
        return
    before = full.metrics[name].value
    by_size: dict[float, list[str]] = {}
    for row in sized:
        if row.values[0] is not None:
            by_size.setdefault(row.values[0].sort, []).append(row.name)
    parts = [
        f"{listing(who)}: {formatting.quantity(size, 'bytes')}"
        + (f", {formatting.ratio(before / size)} times smaller" if 0 < size < before else "")
        for size, who in sorted(by_size.items())
    ]
    yield Point(
        kind="size",
        title="Size",
        text=f"Full precision takes {formatting.quantity(before, 'bytes')}. {'; '.join(parts)}.",
    )


def metric_rows(cells: Sequence[CellView], name: str) -> list[Row]:
    """Rows of the quantized cells in a table of this metric alone."""
    rows = rows_of("verdict", [name], cells, {}, first=False)
    return [row for row in rows if row.cells[0].quantized]


def _ranked(cells: Sequence[CellView], name: str) -> list[Row]:
    """Rows whose number is finite, best first; ties in plan order."""
    found = [
        (row.values[0].sort, row)
        for row in metric_rows(cells, name)
        if row.values[0] is not None and math.isfinite(row.values[0].sort)
    ]
    if not found:
        return []
    direction = _having(found[0][1], name)[0].metrics[name].definition.direction
    sign = -1 if direction == "higher" else 1
    return [row for _, row in sorted(found, key=lambda pair: sign * pair[0])]


def _having(row: Row, name: str) -> list[CellView]:
    return [cell for cell in row.cells if name in cell.metrics]


def _seeds(row: Row, name: str) -> int:
    return len({cell.axes.get("seed") for cell in _having(row, name)})


def _title(row: Row, name: str) -> str:
    """The row's name before a number; a name that ends in seeds is set apart from it."""
    return f"{row.name}:" if _seeds(row, name) > 1 else row.name


def amount(row: Row, name: str) -> str:
    """The number of a row of `metric_rows` with its interval and unit."""
    value = row.values[0]
    assert value is not None  # `_ranked` gives rows with a number only
    unit = _having(row, name)[0].metrics[name].definition.unit
    if unit == "x":
        return f"{value.text}{formatting.TIMES}" + (f" ({value.around})" if value.around else "")
    around = f" {value.around}" if value.around.startswith("±") else ""
    around = around or (f" ({value.around})" if value.around else "")
    return f"{name} {value.text}{around} {formatting.scaled(unit)[1]}".rstrip()
