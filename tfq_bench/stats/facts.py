"""What a gate or a comparison looks at: the cells of a run or baseline with their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tfq_bench.border import MetricValue, Record
from tfq_bench.environment import hardware_fingerprint
from tfq_bench.errors import UsageError, nearest

__all__ = ["CellFacts", "Measured", "cell_facts", "find_cell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number and where it was measured.

    Args:
        definition: id of the metric's definition.
        environment: id of the environment.
        hardware: its hardware fingerprint, None when unknown.
    """

    metric: MetricValue
    definition: str
    environment: str
    hardware: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """One cell, what became of it, and its numbers by metric name.

    Args:
        key: content key; a change of code moves it, so cells of two runs match by `axes`.
        reference: key of the full-precision cell, None for that cell itself.
        reason: why it failed, was skipped or is not finished.
        failed_metrics: why, by name in the suite, of metrics that failed while others are there. A
            cell is failed as a whole only when nothing of it was measured or another stage failed.
    """

    key: str
    label: str
    axes: Mapping[str, str]
    status: Literal["ok", "failed", "skipped", "unfinished"]
    values: Mapping[str, Measured]
    reason: str | None = None
    reference: str | None = None
    failed_metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """The cell's place in the grid; equal for the same cell of two runs."""
        return tuple(sorted(self.axes.items()))


def cell_facts(
    plan: Mapping[str, Any],
    records: Iterable[Record],
    environments: Mapping[str, Mapping[str, Any]],
) -> tuple[CellFacts, ...]:
    """The plan's cells in plan order, with what `records` say about them.

    Args:
        plan: content of `plan.json`. environments: by id, as a run folder returns them.
    """
    of_cell: dict[str, list[Record]] = {}
    for record in records:
        of_cell.setdefault(record.cell, []).append(record)
    hardware = {
        name: hardware_fingerprint(environment)
        for name, environment in environments.items()
        if "hardware" in environment
    }
    return tuple(_facts(cell, of_cell.get(cell["key"], []), hardware) for cell in plan["cells"])


def find_cell(cells: Iterable[CellFacts], name: str) -> CellFacts:
    """The one cell with this label, or whose key begins so.

    Raises:
        UsageError: none or several are called so.
    """
    known = list(cells)
    found = [cell for cell in known if name and (cell.label == name or cell.key.startswith(name))]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{cell.key} ({cell.label})" for cell in found)
        raise UsageError(f"several cells are called '{name}': {several}; give more of the key.")
    raise UsageError(f"no cell is called '{name}'; {nearest(name, [c.label for c in known])}")


def _facts(
    cell: Mapping[str, Any], records: list[Record], hardware: Mapping[str, str]
) -> CellFacts:
    failed = [record for record in records if record.failed_metric is not None]
    bad = next((r for r in records if r.status != "ok" and r.failed_metric is None), None)
    values = {
        record.metric.definition.name: Measured(
            metric=record.metric,
            definition=record.definition or "",
            environment=record.environment,
            hardware=hardware.get(record.environment),
        )
        for record in records
        if record.metric is not None
    }
    status: Literal["ok", "failed", "skipped", "unfinished"]
    reason = cell.get("reason")
    if cell["status"] == "skipped":
        status = "skipped"
    elif bad is not None:
        status, reason = ("failed" if bad.status == "failed" else "skipped"), bad.reason
    elif values or any(record.status == "ok" for record in records):
        status = "ok"
    elif failed:
        status, reason = "failed", f"metric '{failed[0].failed_metric}': {failed[0].reason}"
    else:
        status, reason = "unfinished", "it has no results yet"
    return CellFacts(
        key=cell["key"],
        label=cell["label"],
        axes=cell["axes"],
        status=status,
        values=values,
        reason=reason,
        reference=cell.get("reference"),
        failed_metrics={r.failed_metric: r.reason or "" for r in failed if r.failed_metric},
    )
