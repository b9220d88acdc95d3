"""Run folder to view model: reads records, plan, stage results and logs; computes no new number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfq_bench.api import MetricDefinition, MetricValue, Record, StoreError, printable
from tfq_bench.store import RunFolder, run_facts
from tfq_bench_reports.view.contestants import remark_of, with_tools
from tfq_bench_reports.view.environments import environments_of, hardware_of
from tfq_bench_reports.view.kernels import kernels_of
from tfq_bench_reports.view.model_groups import model_groups
from tfq_bench_reports.view.naming import Name, short_names
from tfq_bench_reports.view.redact import redact
from tfq_bench_reports.view.tables import DIRECTIONS, tables_of
from tfq_bench_reports.view.trouble import cut, trouble_of
from tfq_bench_reports.view.types import (
    CellView,
    DefinitionView,
    KernelsView,
    ModelView,
    RunView,
)

if TYPE_CHECKING:
    from tfq_bench.stats import CellResults

__all__ = ["SPEED_UNITS", "read_run"]

SUITE_CHARACTERS = 100_000
SPEED_UNITS = frozenset({"ns", "us", "ms", "images/s", "steps/s", "x"})
"""Units of speeds. A volatile number of such a unit says nothing about a simulated cell: it is the
speed of the simulation."""


def read_run(run: RunFolder) -> RunView:
    """The view of a run; cells in plan order.

    Raises:
        StoreError: the run cannot be read.
    """
    plan = run.plan()
    records = run.records()
    cells = _cells(run, plan, records)
    glossary = _glossary(cells)
    environments = environments_of(run, records)
    numbers = {entry.id: entry.number for entry in glossary}
    suite = plan.get("suite", {})
    name = str(suite.get("name", "run"))
    return RunView(
        name=name,
        plan=str(plan.get("id", "")),
        summary=str(suite.get("summary", "")),
        cells=cells,
        models=tuple(
            ModelView(
                name=group.name,
                options=redact(group.options),
                tables=tables_of(
                    group.cells, numbers, hardware_of(group.cells, environments, plan)
                ),
            )
            for group in model_groups(cells)
        ),
        kernels=tuple(_kernels(run, plan, cells)),
        glossary=glossary,
        environments=environments,
        plugins=tuple(sorted({plugin for record in records for plugin in record.plugins})),
        settings=tuple(_settings(plan)),
        suite=cut(redact(_suite_text(run)), SUITE_CHARACTERS),
        commands=("tfq-bench run suite.toml", f"tfq-bench report runs/{name}"),
        images=_image_count(plan),
    )


def _cells(
    run: RunFolder, plan: Mapping[str, Any], records: Sequence[Record]
) -> tuple[CellView, ...]:
    by_cell: dict[str, list[Record]] = {}
    for record in records:
        by_cell.setdefault(record.cell, []).append(record)
    names = short_names(plan["cells"])
    facts = {cell.key: cell for cell in run_facts(run)}
    cells = [
        _cell(run, planned, facts[planned["key"]], by_cell.get(planned["key"], []), names)
        for planned in plan["cells"]
    ]
    # Stable: full precision first, then the order of the suite.
    return tuple(sorted(cells, key=lambda cell: cell.quantized))


def _cell(
    run: RunFolder,
    planned: Mapping[str, Any],
    facts: CellResults,
    records: list[Record],
    names: Mapping[str, Name],
) -> CellView:
    execution = planned["execution"]
    kept = [
        record
        for record in records
        if record.metric is not None and not _meaningless(execution, record.metric)
    ]
    trouble = trouble_of(run, planned, facts, records)
    axes = planned["axes"]
    return CellView(
        key=planned["key"],
        parts=names[planned["key"]],
        label=planned["label"],
        group=f"{axes.get('model', '')} {axes.get('model_options', '')}",
        execution=execution,
        status=trouble.status if trouble else "ok",
        # Charts tell methods apart by their variant.
        axes={**axes, "variant": str(planned.get("variant") or "")},
        metrics={r.metric.definition.name: r.metric for r in kept if r.metric is not None},
        definitions={
            r.metric.definition.name: r.definition or r.metric.definition.name
            for r in kept
            if r.metric is not None
        },
        reference=planned.get("reference"),
        environment=next((record.environment for record in records), ""),
        trouble=trouble,
        broken=redact(next((r.reason or "" for r in records if r.broken_images), "")),
        remark=remark_of(run, planned),
    )


def _meaningless(execution: str, metric: MetricValue) -> bool:
    definition = metric.definition
    return execution == "simulated" and definition.volatile and definition.unit in SPEED_UNITS


def _kernels(
    run: RunFolder, plan: Mapping[str, Any], cells: Iterable[CellView]
) -> Iterable[KernelsView]:
    keys = {cell["key"]: cell["keys"].get("lower") for cell in plan["cells"]}
    planned = {cell["key"]: cell for cell in plan["cells"]}
    for cell in cells:
        key = keys[cell.key]
        listed = cell.execution in ("lowered", "external")
        if not listed or not key or not run.artefacts.has("lower", key):
            continue
        try:
            facts = run.artefacts.result("lower", key)
        except StoreError:
            if cell.status == "ok":
                raise  # numbers without proof of what made them are not reported
            continue
        try:
            yield with_tools(kernels_of(cell, facts), run, planned[cell.key])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            folder = run.artefacts.path("lower", key)
            raise StoreError(
                f"'{folder / 'result.json'}': expected the kernels of cell '{cell.label}', found "
                f"{type(error).__name__}: {printable(error, 200)}. Delete the folder '{folder}' "
                "and run the suite again."
            ) from None


def _glossary(cells: Iterable[CellView]) -> tuple[DefinitionView, ...]:
    found = {
        cell.definitions[name]: value.definition
        for cell in cells
        for name, value in cell.metrics.items()
    }
    return tuple(
        DefinitionView(
            number=number,
            id=identifier,
            definition=definition,
            direction=DIRECTIONS[definition.direction],
            parameters=json.dumps(_parameters(definition), indent=2, sort_keys=True),
        )
        for number, (identifier, definition) in enumerate(sorted(found.items()), start=1)
    )


def _parameters(definition: MetricDefinition) -> dict[str, Any]:
    by = definition.measured_by
    host = {} if by is None else {"measured by": {"metric": by.metric, **by.options}}
    return {**definition.parameters, **host}


def _settings(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for part in ("sampling", "calibration", "timing"):
        for name, value in sorted((plan.get(part) or {}).items()):
            yield f"{part}: {name}", str(value)


def _image_count(plan: Mapping[str, Any]) -> int | None:
    shards = plan.get("shards") or []
    return sum(int(stop) - int(start) for start, stop in shards) if shards else None


def _suite_text(run: RunFolder) -> str:
    try:
        return (run.path / "suite.toml").read_text("utf-8", errors="replace")
    except OSError:
        return ""
