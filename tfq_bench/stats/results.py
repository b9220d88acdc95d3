"""What a gate or a comparison looks at: the cells of a run or baseline with their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tfq_bench.errors import NotComparable, UsageError, nearest
from tfq_bench.provenance.environment import hardware_fingerprint, stated_arithmetic
from tfq_bench.types import MetricValue, Record

__all__ = ["CellResults", "Measured", "by_identity", "cell_facts", "find_cell", "flaw", "seeds_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number and where it was measured.

    Args:
        definition: id of the metric's definition.
        environment: id of the environment.
        hardware: its hardware fingerprint, None when unknown.
        arithmetic: what it says of threads, kernels and torch, see `stated_arithmetic`.
    """

    metric: MetricValue
    definition: str
    environment: str
    hardware: str | None
    arithmetic: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResults:
    """One cell, what became of it, and its numbers by metric name.

    Args:
        key: content key; a change of code moves it, so cells of two runs match by `axes`.
        reference: key of the full-precision cell, None for that cell itself.
        reason: why it failed, was skipped or is not finished.
        stage: where a failed cell failed.
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
    stage: str | None = None
    failed_metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """The cell's place in the grid; equal for the same cell of two runs."""
        return tuple(sorted(self.axes.items()))

    @property
    def identity_but_seed(self) -> tuple[tuple[str, str], ...]:
        """Equal for cells that differ in nothing but their seed."""
        return tuple(axis for axis in self.identity if axis[0] != "seed")


def cell_facts(
    plan: Mapping[str, Any],
    records: Iterable[Record],
    environments: Mapping[str, Mapping[str, Any]],
) -> tuple[CellResults, ...]:
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
    arithmetic = {name: stated_arithmetic(found) for name, found in environments.items()}
    return tuple(
        _facts(cell, of_cell.get(cell["key"], []), hardware, arithmetic) for cell in plan["cells"]
    )


def seeds_of(cells: Iterable[CellResults]) -> str:
    """The seeds of these cells in words."""
    return ", ".join(sorted({cell.axes.get("seed", "no seed") for cell in cells}))


def by_identity(cells: Iterable[CellResults]) -> dict[tuple[tuple[str, str], ...], CellResults]:
    """The cells by their place in the grid.

    Raises:
        NotComparable: two share one, and nobody could say which of them is meant.
    """
    found: dict[tuple[tuple[str, str], ...], CellResults] = {}
    for cell in cells:
        if (other := found.setdefault(cell.identity, cell)) is not cell:
            raise NotComparable(
                f"the cells '{other.label}' ({other.key or 'baseline'}) and '{cell.label}' "
                f"({cell.key or 'baseline'}) have the same place in the grid; cells are matched by "
                "it. Take one of them out of the suite."
            )
    return found


def find_cell(cells: Iterable[CellResults], name: str) -> CellResults:
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


def flaw(metric: MetricValue) -> str | None:
    """What is wrong with a number that cannot be held against another, None when it can.

    A number whose error could not be computed is one of these: nobody knows how far it is off.
    """
    interval = metric.interval
    if not math.isfinite(metric.value):
        return f"{metric.value}"
    if interval is not None and not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return f"the interval [{interval.low}, {interval.high}], which is not finite"
    if interval is not None and interval.low > interval.high:
        return f"the interval [{interval.low}, {interval.high}], which is upside down"
    if not all(map(math.isfinite, metric.replicates)):
        return "replicates that are not finite"
    if metric.replicates and metric.n < 2:
        return f"an error from n = {metric.n}, which tells nothing"
    return None


def _facts(
    cell: Mapping[str, Any],
    records: list[Record],
    hardware: Mapping[str, str],
    arithmetic: Mapping[str, Mapping[str, str]],
) -> CellResults:
    failed = [record for record in records if record.failed_metric is not None]
    bad = next((r for r in records if r.status != "ok" and r.failed_metric is None), None)
    values = {
        record.metric.definition.name: Measured(
            metric=record.metric,
            definition=record.definition or "",
            environment=record.environment,
            hardware=hardware.get(record.environment),
            arithmetic=arithmetic.get(record.environment, {}),
        )
        for record in records
        if record.metric is not None
    }
    status: Literal["ok", "failed", "skipped", "unfinished"]
    reason = cell["reason"]
    if cell["status"] == "skipped":
        status = "skipped"
    elif bad is not None:
        status, reason = ("failed" if bad.status == "failed" else "skipped"), bad.reason
    elif (lacking := _lacking(cell["keys"]["evaluate"], records)) is not None:
        status, reason = "unfinished", lacking
    elif failed and not values:
        status, reason = "failed", f"metric '{failed[0].failed_metric}': {failed[0].reason}"
    else:
        status = "ok"
    return CellResults(
        key=cell["key"],
        label=cell["label"],
        axes=cell["axes"],
        status=status,
        values=values,
        reason=reason,
        reference=cell["reference"],
        stage=bad.stage if bad is not None else None,
        failed_metrics={r.failed_metric: r.reason or "" for r in failed if r.failed_metric},
    )


def _lacking(sources: list[str], records: list[Record]) -> str | None:
    """What the records do not have of these evaluations, None when they are complete."""
    if not records:
        return "it has no results yet"
    absent = 0
    for source in sources:
        found = [record for record in records if record.source == source]
        numbers = sum(record.metric is not None for record in found)
        if not found:
            absent += 1
        elif any(r.status == "ok" and r.source_values != numbers for r in found):
            wanted = found[0].source_values
            return f"{numbers} of {wanted} numbers of evaluation '{source}' are on record"
    return f"{absent} of its {len(sources)} metrics have no results yet" if absent else None
