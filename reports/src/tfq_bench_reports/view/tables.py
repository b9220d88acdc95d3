"""Result tables: which metrics stand in which table.

Families follow from what a metric says about itself, never from its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tfq_bench.api import MetricValue
from tfq_bench_reports import formatting
from tfq_bench_reports.view.rows import each_seed, rows_of
from tfq_bench_reports.view.types import CellView, Column, Table

__all__ = ["DIRECTIONS", "family", "tables_of"]

DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "none": "no better direction",
}

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
    """One table per family that has a metric; rows in plan order.

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
                    rows=rows_of(key, columns, cells, numbers_of, first=not tables),
                    each=each_seed(key, columns, cells, numbers_of),
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
