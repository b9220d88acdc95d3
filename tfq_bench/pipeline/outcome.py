"""Records of a cell, made from its artefacts alone, so that any order of tasks gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tfq_bench.errors import SuiteError
from tfq_bench.foreign.text import printable
from tfq_bench.keys import definition_id
from tfq_bench.store.evaluations import read_values
from tfq_bench.types import Record

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.types import Component, MeasuredBy, MetricValue

__all__ = ["failed_metric_record", "failure_record", "metric_records", "skip_record"]


def metric_records(
    plan: Plan, planned: PlannedCell, store: ArtefactStore, environment: str
) -> list[Record]:
    """One record per number that the cell's finished metrics gave, in suite order.

    A metric that gave no number for this cell has a record too: it is finished.

    Raises:
        SuiteError: two metrics gave a number of one name; each was stored when it was alone.
    """
    records = [
        _record(
            plan,
            planned,
            environment,
            status="ok",
            metric=None if value is None else _named(component, by, value),
            source=key,
            source_values=len(values),
        )
        for component, by, key in zip(
            plan.metrics, plan.measured_by, planned.keys.evaluate, strict=True
        )
        if store.has("evaluate", key)
        for values in [read_values(store, key)]
        for value in values or [None]
    ]
    names = [r.metric.definition.name for r in records if r.metric is not None]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SuiteError(
            f"two metrics of the suite report '{twice}' for the cell '{planned.cell.label}'; give "
            "one of their [[metric]] tables a label."
        )
    return records


def _named(component: Component, by: MeasuredBy, value: MetricValue) -> MetricValue:
    """The value under the name that it has in this suite, with what measured it."""
    name = component.titled(value.definition.name)
    return replace(value, definition=replace(value.definition, name=name, measured_by=by))


def failed_metric_record(
    plan: Plan,
    planned: PlannedCell,
    environment: str,
    *,
    metric: str,
    source: str,
    reason: str,
    reproduce: str,
    log: str,
) -> Record:
    """What became of one metric of a cell that has other numbers.

    Args:
        metric: its name in the suite. source: its `evaluate` key.
    """
    return _record(
        plan,
        planned,
        environment,
        status="failed",
        stage="evaluate",
        failed_metric=metric,
        source=source,
        reason=reason,
        reproduce=reproduce,
        log=log,
    )


def failure_record(
    plan: Plan,
    planned: PlannedCell,
    environment: str,
    *,
    stage: str,
    reason: str,
    reproduce: str,
    log: str,
) -> Record:
    """What became of a cell that could not go on."""
    return _record(
        plan,
        planned,
        environment,
        status="failed",
        stage=stage,
        reason=reason,
        reproduce=reproduce,
        log=log,
    )


def skip_record(plan: Plan, planned: PlannedCell, environment: str) -> Record:
    """Why a cell was left out."""
    return _record(plan, planned, environment, status="skipped", reason=planned.skip)


def _record(plan: Plan, planned: PlannedCell, environment: str, **fields: object) -> Record:
    metric = fields.get("metric")
    if fields.get("reason") is not None:
        fields["reason"] = printable(fields["reason"])  # most are an exception's own words
    return Record(
        run=plan.id,
        cell=planned.cell.key,
        label=planned.cell.label,
        axes=planned.axes,
        execution=planned.execution,
        environment=environment,
        plugins=planned.plugins,
        definition=definition_id(metric.definition) if metric is not None else None,  # type: ignore[attr-defined]
        **fields,  # type: ignore[arg-type]
    )
