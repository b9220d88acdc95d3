"""Rows of a result table: one for cells that show the same, one for the seeds of a cell."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tfq_bench_reports import formatting
from tfq_bench_reports.view.dedupe import fingerprint, joined_name, point
from tfq_bench_reports.view.deltas import compare, compare_seeds, half_width
from tfq_bench_reports.view.types import CellView, Row, ValueView

__all__ = ["each_seed", "rows_of", "seed_lines"]

Line = tuple[CellView, ...]
"""The seeds of one cell, in plan order; one cell where there is one seed."""


@dataclass(slots=True, kw_only=True)
class _Group:
    """Lines in one row: `named` show the same as the first, `covered` show a part of it."""

    named: list[Line]
    covered: list[Line] = field(default_factory=list)

    @property
    def cells(self) -> list[CellView]:
        return [cell for line in (*self.named, *self.covered) for cell in line]


def rows_of(
    key: str,
    columns: Sequence[str],
    cells: Sequence[CellView],
    numbers_of: Mapping[str, int],
    *,
    first: bool,
) -> tuple[Row, ...]:
    """Rows with numbers in plan order; the first table also has the cells without any.

    Args:
        key: of the table. columns: its metrics.
        numbers_of: glossary number by definition id.
    """
    measured = [cell for cell in cells if any(name in cell.metrics for name in columns)]
    rows = _rows(key, columns, seed_lines(measured, columns), cells, numbers_of)
    if first:
        having = {cell.key for cell in measured}
        rows += [
            Row(
                name=cell.name,
                cells=(cell,),
                badges=(cell.execution,) if cell.metrics else (),
                values=(None,) * len(columns),
                note=cell.trouble.reason,
                trouble=cell,
            )
            for cell in cells
            if cell.key not in having and cell.trouble is not None
        ]
    places = {cell.key: place for place, cell in enumerate(cells)}
    return tuple(sorted(rows, key=lambda row: min(places[cell.key] for cell in row.cells)))


def each_seed(
    key: str, columns: Sequence[str], cells: Sequence[CellView], numbers_of: Mapping[str, int]
) -> tuple[Row, ...]:
    """A row for every seed of the cells that `rows_of` shows as a mean; empty without such."""
    measured = [cell for cell in cells if any(name in cell.metrics for name in columns)]
    lines = [line for line in seed_lines(measured, columns) if len(line) > 1]
    singles = [(cell,) for line in lines for cell in line]
    return tuple(_rows(key, columns, singles, cells, numbers_of))


def seed_lines(cells: Iterable[CellView], columns: Sequence[str]) -> list[Line]:
    """Cells that differ in their seed only, together.

    Numbers of different definitions have no mean: such cells stay apart.
    """
    found: dict[Hashable, list[CellView]] = {}
    for cell in cells:
        where = (cell.axes.get("backend"), cell.axes.get("backend_options"))
        found.setdefault((point(cell, seed=False), where), []).append(cell)
    lines: list[Line] = []
    for group in found.values():
        seeds = {cell.axes.get("seed") for cell in group}
        alike = all(
            len({cell.definitions[name] for cell in group if name in cell.metrics}) < 2
            for name in columns
        )
        lines += [tuple(group)] if alike and len(seeds) == len(group) else [(c,) for c in group]
    return lines


def _rows(
    key: str,
    columns: Sequence[str],
    lines: Sequence[Line],
    cells: Sequence[CellView],
    numbers_of: Mapping[str, int],
) -> list[Row]:
    by_key = {cell.key: cell for cell in cells}
    several = {
        name: len({cell.definitions[name] for cell in cells if name in cell.metrics}) > 1
        for name in columns
    }
    means = any(len(line) > 1 for line in lines)
    places = {name: None if means else _places(name, cells) for name in columns}
    order = {cell.key: place for place, cell in enumerate(cells)}
    rows = []
    for group in _grouped(lines, columns):
        named = sorted((c for line in group.named for c in line), key=lambda c: order[c.key])
        rows.append(
            Row(
                name=joined_name(named),
                cells=tuple(sorted(group.cells, key=lambda c: order[c.key])),
                badges=tuple(dict.fromkeys(cell.execution for cell in named)),
                values=tuple(
                    _value(
                        name,
                        group.named[0],
                        by_key,
                        numbers_of if several[name] else {},
                        places[name],
                    )
                    for name in columns
                ),
                note=_note(key, group),
            )
        )
    return rows


def _grouped(lines: Iterable[Line], columns: Sequence[str]) -> list[_Group]:
    """Lines that differ in their backend only and contradict each other in no number."""
    groups: dict[Hashable, list[_Group]] = {}

    def shown(line: Line) -> list[Hashable]:
        return [fingerprint(cell, name) for cell in line for name in columns]

    # The fullest line first, so that it stands for those that have less.
    for line in sorted(lines, key=lambda line: shown(line).count(None)):
        seeds = tuple(cell.axes.get("seed") for cell in line)
        known = groups.setdefault((point(line[0], seed=False), seeds), [])
        mine = shown(line)
        for group in known:
            theirs = shown(group.named[0])
            if mine == theirs:
                group.named.append(line)
                break
            if all(a is None or a == b for a, b in zip(mine, theirs, strict=True)):
                group.covered.append(line)
                break
        else:
            known.append(_Group(named=[line]))
    return [group for known in groups.values() for group in known]


def _places(name: str, cells: Iterable[CellView]) -> int | None:
    """Decimals of the column, so that digits align; None where intervals decide."""
    values = [cell.metrics[name] for cell in cells if name in cell.metrics]
    if any(value.interval is not None for value in values):
        return None
    return formatting.decimals(
        value.value * formatting.scaled(value.definition.unit)[0] for value in values
    )


def _note(key: str, group: _Group) -> str:
    if group.named[0][0].execution == "external":
        return f"layers, ranges and arithmetic are its own. {group.named[0][0].remark}".strip()
    untimed = key == "cost"
    if untimed and group.named[0][0].execution == "simulated":
        return "not timed: simulated"
    if not group.covered:
        return ""
    less = ", ".join(dict.fromkeys(line[0].parts.backend or line[0].name for line in group.covered))
    simulated = all(line[0].execution == "simulated" for line in group.covered)
    return (
        f"{less}: same, but not timed" if untimed and simulated else f"{less}: same where measured"
    )


def _value(
    name: str,
    line: Line,
    by_key: Mapping[str, CellView],
    marks: Mapping[str, int],
    places: int | None,
) -> ValueView | None:
    having = [cell for cell in line if name in cell.metrics]
    if not having:
        return None
    values = [cell.metrics[name] for cell in having]
    pairs = []
    for cell, value in zip(having, values, strict=True):
        reference = by_key.get(cell.reference or "")
        if reference is not None and name in reference.metrics:
            pairs.append((value, reference.metrics[name]))
    factor, _ = formatting.scaled(values[0].definition.unit)
    mark = marks.get(having[0].definitions[name])
    if len(values) == 1:
        value, interval = values[0], values[0].interval
        spread = None if interval is None else (interval.high - interval.low) / 2 * factor
        return ValueView(
            text=formatting.number(value.value * factor, spread, places),
            around=formatting.around(value.value, interval, factor),
            sort=value.value,
            n=value.n,
            mark=mark,
            delta=compare(*pairs[0], places) if pairs else None,
            seeds=_part(having, line),
        )
    noise = half_width([value.interval for value in values]) * factor
    mean, half, around = formatting.mean_and_range([v.value * factor for v in values], noise)
    return ValueView(
        text=formatting.number(mean, half),
        around=around,
        sort=mean / factor,
        n=values[0].n,
        mark=mark,
        delta=compare_seeds(pairs) if len(pairs) == len(values) else None,
        seeds=_part(having, line),
    )


def _part(having: Sequence[CellView], line: Line) -> str:
    """Which seeds have the number, where that is not all of them."""
    if len(having) == len(line):
        return ""
    seeds = ", ".join(cell.axes.get("seed", "?") for cell in having)
    return f"seed{'s' if len(having) > 1 else ''} {seeds} only"
