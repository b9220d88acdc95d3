"""Run folder to view model: reads records, plan, stage results and logs; computes no new number."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfq_bench.api import printable
from tfq_bench.border import MetricDefinition, MetricValue, Record
from tfq_bench.errors import StoreError
from tfq_bench.store.baseline import run_facts
from tfq_bench.store.run import RunFolder
from tfq_bench_reports.view.kernels import kernels_of
from tfq_bench_reports.view.model_groups import model_groups
from tfq_bench_reports.view.naming import Name, short_names
from tfq_bench_reports.view.redact import redact
from tfq_bench_reports.view.tables import DIRECTIONS, tables_of
from tfq_bench_reports.view.types import (
    CellView,
    DefinitionView,
    EnvironmentView,
    KernelsView,
    ModelView,
    Outcome,
    RunView,
    Trouble,
)

if TYPE_CHECKING:
    from tfq_bench.stats.facts import CellFacts

__all__ = ["LOG_LINES", "SPEED_UNITS", "read_run"]

LOG_LINES = 30
LOG_CHARACTERS = 2_000
"""Of one line."""
LOG_BYTES = 10_000_000
"""Of the end of a log that are looked at."""
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
    environments = _environments(run, records)
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
                tables=tables_of(group.cells, numbers, _hardware(group.cells, environments, plan)),
            )
            for group in model_groups(cells)
        ),
        kernels=tuple(_kernels(run, plan, cells)),
        glossary=glossary,
        environments=environments,
        plugins=tuple(sorted({plugin for record in records for plugin in record.plugins})),
        settings=tuple(_settings(plan)),
        suite=_cut(redact(_suite_text(run)), SUITE_CHARACTERS),
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
    facts: CellFacts,
    records: list[Record],
    names: Mapping[str, Name],
) -> CellView:
    execution = planned["execution"]
    kept = [
        record
        for record in records
        if record.metric is not None and not _meaningless(execution, record.metric)
    ]
    trouble = _trouble(run, planned, facts, records)
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
    )


def _meaningless(execution: str, metric: MetricValue) -> bool:
    definition = metric.definition
    return execution == "simulated" and definition.volatile and definition.unit in SPEED_UNITS


def _trouble(
    run: RunFolder, planned: Mapping[str, Any], facts: CellFacts, records: list[Record]
) -> Trouble | None:
    bad = [record for record in records if record.status != "ok"]
    measured = any(record.metric is not None for record in records)
    if bad:
        record = next((r for r in bad if r.failed_metric is None), bad[-1])
        status: Outcome = "skipped" if record.status == "skipped" else "failed"
        return Trouble(
            status="partial" if measured else status,
            reason=_reasons(bad),
            besides=_reasons(record for record in bad if not record.broken_images),
            stage=record.stage,
            reproduce=redact(record.reproduce) if record.reproduce else None,
            log=_log_tail(run, planned["key"]) if status == "failed" else "",
        )
    if records and facts.status == "unfinished":
        return Trouble(
            status="partial",
            reason=f"Not finished: {facts.reason}. Run the suite again to finish it.",
        )
    if records:
        return None
    if planned.get("status") == "skipped":
        return Trouble(status="skipped", reason=redact(planned.get("reason") or "no reason given"))
    return Trouble(
        status="not run",
        reason="The run has no record of this cell. Run the suite again to finish it.",
    )


def _reasons(records: Iterable[Record]) -> str:
    return _cut(redact("; ".join(map(_reason, records))), 10 * LOG_CHARACTERS)


def _reason(record: Record) -> str:
    reason = record.reason or "no reason was recorded"
    return reason if record.failed_metric is None else f"metric '{record.failed_metric}': {reason}"


def _log_tail(run: RunFolder, key: str) -> str:
    try:
        with run.log_path(key).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""  # a missing log is no reason to refuse the report
    tail = redact("\n".join(lines[-LOG_LINES:])).split("\n")
    return "\n".join(_cut(line, LOG_CHARACTERS) for line in tail)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def _kernels(
    run: RunFolder, plan: Mapping[str, Any], cells: Iterable[CellView]
) -> Iterable[KernelsView]:
    keys = {cell["key"]: cell["keys"].get("lower") for cell in plan["cells"]}
    for cell in cells:
        key = keys[cell.key]
        if cell.execution != "lowered" or not key or not run.artefacts.has("lower", key):
            continue
        try:
            facts = run.artefacts.result("lower", key)
        except StoreError:
            if cell.status == "ok":
                raise  # numbers without proof of what made them are not reported
            continue
        try:
            yield kernels_of(cell, facts)
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


def _environments(run: RunFolder, records: Sequence[Record]) -> tuple[EnvironmentView, ...]:
    used = {record.environment for record in records}
    return tuple(
        EnvironmentView(id=identifier, sentence=_sentence(content), facts=tuple(_flatten(content)))
        for identifier, content in sorted(run.environments().items())
        if identifier in used
    )


def _sentence(environment: Mapping[str, Any]) -> str:
    hardware = environment.get("hardware", {})
    gpus = [str(gpu.get("name")) for gpu in hardware.get("gpus") or []]
    parts = [
        *gpus,
        str(hardware.get("cpu", "unknown processor")),
        f"{hardware.get('usable_cores', '?')} usable cores",
    ]
    threads = environment.get("threads", {}).get("torch")
    if threads is not None:
        parts.append(f"{threads} torch threads")
    torch = environment.get("versions", {}).get("torch")
    if torch:
        parts.append(f"torch {torch}")
    return ", ".join(parts)


def _flatten(content: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(content, Mapping) and content:
        for key, value in sorted(content.items()):
            yield from _flatten(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list) and any(isinstance(item, Mapping | list) for item in content):
        for number, item in enumerate(content):
            yield from _flatten(item, f"{name}[{number}]")
    elif isinstance(content, list):
        yield name, ", ".join(map(str, content)) or "none"
    else:
        yield name, redact(str(content))


def _hardware(
    cells: Iterable[CellView], environments: Iterable[EnvironmentView], plan: Mapping[str, Any]
) -> str:
    """Where the speeds come from, and under which conditions."""
    timed = {cell.environment for cell in cells if cell.metrics}
    sentences = [env.sentence for env in environments if env.id in timed]
    timing = plan.get("timing") or {}
    settings = ", ".join(f"{name} {value}" for name, value in sorted(timing.items()))
    where = f"Measured on {'; '.join(dict.fromkeys(sentences))}" if sentences else ""
    return ". ".join(part for part in (where, f"Timing: {settings}" if settings else "") if part)


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
