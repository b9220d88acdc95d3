"""The table that ends a run: a row per cell, the first number of each metric as columns."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tfq_bench.foreign.text import printable
from tfq_bench.output.terminal import number, table
from tfq_bench.store.evaluations import read_values

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.types import Cell, Record

__all__ = ["broken_images", "summary"]


def summary(plan: Plan, store: ArtefactStore, records: tuple[Record, ...]) -> str:
    """A plain table as wide as the terminal; columns that do not fit are left to the report."""
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.metric is not None:
            found.setdefault(record.cell, {})[record.metric.definition.name] = record
    columns = _columns(plan, store)
    width = shutil.get_terminal_size((120, 24)).columns
    for count in range(len(columns), -1, -1):
        text = table(["cell", *columns[:count]], _rows(plan, found, columns[:count], records))
        if max(map(len, text.splitlines())) <= width or count == 0:
            break
    note = f"{plan.spec.sampling['images']} images a cell."
    if left_out := columns[count:]:
        note += f" In the report: {', '.join(left_out)}."
    return "\n".join([*broken_images(records), text, printable(note)])


def broken_images(records: Iterable[Record]) -> list[str]:
    """What must be read before any number: cells whose images show nothing, a line each."""
    return [
        printable(f"BROKEN IMAGES: {record.label}: {record.reason}")
        for record in records
        if record.broken_images
    ]


def _columns(plan: Plan, store: ArtefactStore) -> list[str]:
    """The first number that each metric of the suite gives for any cell."""
    names: list[str] = []
    for position, metric in enumerate(plan.metrics):
        for planned in plan.runnable():
            key = planned.keys.evaluate[position]
            values = read_values(store, key) if store.has("evaluate", key) else ()
            if values:
                names.append(metric.titled(values[0].definition.name))
                break
    return list(dict.fromkeys(names))


def _rows(
    plan: Plan,
    found: dict[str, dict[str, Record]],
    columns: list[str],
    records: tuple[Record, ...],
) -> list[list[str]]:
    status = {r.cell: r.status for r in records if r.status != "ok" and r.failed_metric is None}
    rows = []
    for planned in plan.cells:
        key = planned.cell.key
        row = [_label(plan, planned.cell)]
        for name in columns:
            record = found.get(key, {}).get(name)
            row.append(number(record.metric.value) if record and record.metric else "")
        if key in status:
            row[1:] = [status[key], *[""] * (len(columns) - 1)] if columns else []
        rows.append(row)
    return rows


def _label(plan: Plan, cell: Cell) -> str:
    """The cell's label, without the model where there is only one."""
    models = {repr(planned.cell.model) for planned in plan.cells}
    return cell.label if len(models) > 1 else cell.label.removeprefix(f"{cell.model.name} / ")
