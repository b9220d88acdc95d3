"""Result tables: metrics by family, each value with its interval and its delta to full precision.

Families follow from what a metric says about itself, never from its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from tfq_bench.border import Interval, MetricValue
from tfq_bench.errors import NotComparable
from tfq_bench.stats.compare import delta
from tfq_bench_reports import formatting
from tfq_bench_reports.model import CellView, Column, DeltaView, Row, Table, ValueView

__all__ = ["DIRECTIONS", "SAME", "compare", "exact", "family", "tables_of"]

DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "none": "no better direction",
}
SAME = "no measurable difference"
UNSURE = "no interval"

_FAMILIES = {
    "quality": ("Image quality", "Images against the reference set."),
    "paired": (
        "Distance to full precision",
        "Each cell against the full-precision cell of the same noise, so there is no delta.",
    ),
    "cost": ("Speed and memory", ""),
    "facts": (
        "Size and execution",
        "Counted, not estimated: these numbers have no sampling error.",
    ),
}


def tables_of(
    cells: Sequence[CellView], numbers_of: Mapping[str, int], hardware: str
) -> tuple[Table, ...]:
    """One table per family that has a metric; rows are cells in plan order.

    Args:
        numbers_of: glossary number by definition id.
        hardware: sentence that stands beside speeds.
    """
    names: dict[str, list[str]] = {key: [] for key in _FAMILIES}
    for cell in cells:
        for name, value in cell.metrics.items():
            known = names[family(value)]
            if name not in known:
                known.append(name)
    tables: list[Table] = []
    for key, (title, note) in _FAMILIES.items():
        columns = sorted(names[key])
        if columns:
            text = " ".join(part for part in (note, f"{hardware}." if hardware else "") if part)
            tables.append(
                Table(
                    key=key,
                    title=title,
                    note=text if key == "cost" else note,
                    columns=tuple(_column(name, cells, numbers_of) for name in columns),
                    rows=tuple(_rows(key, columns, cells, numbers_of, first=not tables)),
                )
            )
    return tuple(tables)


def family(value: MetricValue) -> str:
    """`quality`, `paired`, `cost` or `facts`."""
    if value.definition.volatile:
        return "cost"
    if value.reference is not None:
        return "paired"
    return "facts" if value.n == 1 else "quality"


def exact(value: MetricValue) -> bool:
    """True for a count or a size: nothing about it was sampled or timed."""
    return value.interval is None and value.n == 1 and not value.definition.volatile


def compare(value: MetricValue, reference: MetricValue, places: int | None = None) -> DeltaView:
    """`value - reference` with its interval, and what that means in a word.

    Args:
        places: decimals of exact differences, None for as many as they need.
    """
    try:
        found = delta(value, reference)
    except NotComparable as error:
        return DeltaView(text="not comparable", word=str(error))
    unit = value.definition.unit
    factor, _ = formatting.scaled(unit)
    interval: Interval | None = found.interval
    spread = None if interval is None else (interval.high - interval.low) / 2 * factor
    certain = exact(value) and exact(reference)
    return DeltaView(
        text=formatting.signed(found.value * factor, spread, places),
        word=_word(found.value, interval, value.definition.direction, certain),
        span="" if interval is None else formatting.around(found.value, interval, factor),
        paired=found.paired,
    )


def _word(value: float, interval: Interval | None, direction: str, certain: bool) -> str:
    if math.isnan(value):
        return "not a number"
    if interval is None:
        if not certain:
            return UNSURE
        if value == 0:
            return "equal"
    elif not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return UNSURE
    elif not (interval.low > 0 or interval.high < 0):
        return SAME
    if direction == "none":
        return "different"
    return "better" if (value < 0) == (direction == "lower") else "worse"


def _column(name: str, cells: Iterable[CellView], numbers_of: Mapping[str, int]) -> Column:
    having = [cell for cell in cells if name in cell.metrics]
    first = having[0].metrics[name]
    counts = sorted({cell.metrics[name].n for cell in having})
    return Column(
        metric=name,
        unit=formatting.TIMES
        if first.definition.unit == "x"
        else formatting.scaled(first.definition.unit)[1],
        direction=DIRECTIONS[first.definition.direction],
        n=", ".join(map(str, counts)),
        marks=tuple(sorted({numbers_of[cell.definitions[name]] for cell in having})),
    )


def _rows(
    key: str,
    columns: Sequence[str],
    cells: Sequence[CellView],
    numbers_of: Mapping[str, int],
    *,
    first: bool,
) -> Iterable[Row]:
    """Rows with numbers; the first table also has the cells without any."""
    by_key = {cell.key: cell for cell in cells}
    several = {
        name: len({cell.definitions[name] for cell in cells if name in cell.metrics}) > 1
        for name in columns
    }
    places = {name: _places(name, cells) for name in columns}
    for cell in cells:
        reference = by_key.get(cell.reference or "")
        values = tuple(
            _value(name, cell, reference, numbers_of if several[name] else {}, places[name])
            for name in columns
        )
        if any(value is not None for value in values):
            yield Row(cell=cell, values=values, note=_note(key, cell))
        elif first and cell.trouble is not None:
            yield Row(cell=cell, values=values, note=cell.trouble.reason)


def _places(name: str, cells: Iterable[CellView]) -> int | None:
    """Decimals of the column, so that digits align; None where intervals decide."""
    values = [cell.metrics[name] for cell in cells if name in cell.metrics]
    if any(value.interval is not None for value in values):
        return None
    return formatting.decimals(
        value.value * formatting.scaled(value.definition.unit)[0] for value in values
    )


def _note(key: str, cell: CellView) -> str:
    if key == "cost" and cell.execution == "simulated":
        return "not timed: simulated"
    return ""


def _value(
    name: str,
    cell: CellView,
    reference: CellView | None,
    marks: Mapping[str, int],
    places: int | None,
) -> ValueView | None:
    value = cell.metrics.get(name)
    if value is None:
        return None
    factor, _ = formatting.scaled(value.definition.unit)
    interval = value.interval
    spread = None if interval is None else (interval.high - interval.low) / 2 * factor
    other = None if reference is None else reference.metrics.get(name)
    return ValueView(
        text=formatting.number(value.value * factor, spread, places),
        around=formatting.around(value.value, interval, factor),
        sort=value.value,
        n=value.n,
        mark=marks.get(cell.definitions[name]),
        delta=None if other is None else compare(value, other, places),
    )
