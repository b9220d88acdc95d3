"""A baseline: the reviewed numbers of a run, as one file that belongs into version control.

It holds no dates and its order is fixed, so that saving the same run again gives the same file.
Each value stands on a line of its own, for reviews.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfq_bench.border import MetricDefinition
from tfq_bench.environment import hardware_fingerprint
from tfq_bench.errors import SuiteError
from tfq_bench.keys import definition_id
from tfq_bench.stats.facts import CellFacts, Measured, cell_facts
from tfq_bench.store.disk import write_atomically
from tfq_bench.store.records import json_number, metric_from_json, metric_to_json
from tfq_bench.store.run import RunFolder

__all__ = ["SCHEMA", "Baseline", "baseline_of", "load_baseline", "run_facts", "save_baseline"]

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Numbers to hold later runs against.

    Args:
        created_from: plan id of the run. suite: its name.
        environments: by id `{"hardware": fingerprint, "description": words}`.
        cells: every cell that has numbers.
    """

    created_from: str
    suite: str
    environments: Mapping[str, Mapping[str, str]]
    cells: tuple[CellFacts, ...]


def run_facts(run: RunFolder) -> tuple[CellFacts, ...]:
    """The cells of a run with their numbers, in plan order."""
    return cell_facts(run.plan(), run.records(), run.environments())


def baseline_of(run: RunFolder, *, allow_incomplete: bool = False) -> Baseline:
    """The finite numbers of a run.

    Raises:
        SuiteError: a cell failed or is not finished, or a number is not finite, unless
            `allow_incomplete`; or there are no numbers at all.
    """
    cells = run_facts(run)
    problems = [
        f"{cell.label} ({cell.status}: {cell.reason})"
        for cell in cells
        if cell.status in ("failed", "unfinished")
    ] + [
        f"{cell.label} ({name} is {measured.metric.value})"
        for cell in cells
        for name, measured in cell.values.items()
        if not math.isfinite(measured.metric.value)
    ]
    if problems and not allow_incomplete:
        raise SuiteError(
            f"expected a complete run at '{run.path}', found problems with {len(problems)}: "
            f"{'; '.join(problems[:5])}. Run the suite again, or save what there is with "
            "--allow-incomplete."
        )
    kept = tuple(_finite(cell) for cell in cells if cell.status != "failed")
    kept = tuple(cell for cell in kept if cell.values)
    if not kept:
        raise SuiteError(f"the run at '{run.path}' has no numbers to save. Run the suite first.")
    used = {measured.environment for cell in kept for measured in cell.values.values()}
    environments = run.environments()
    plan = run.plan()
    return Baseline(
        created_from=plan["id"],
        suite=plan["suite"]["name"],
        environments={
            name: _describe(environments[name]) for name in sorted(used) if name in environments
        },
        cells=kept,
    )


def save_baseline(baseline: Baseline, path: Path) -> None:
    """Writes the baseline, see `schemas/baseline.schema.json`; StoreError when it cannot."""
    definitions = {}
    values = []
    for cell in baseline.cells:
        for name, measured in cell.values.items():
            metric = metric_to_json(measured.metric)
            definitions[measured.definition] = {
                field: metric[field]
                for field in ("name", "unit", "direction", "summary", "parameters", "volatile")
            }
            values.append(
                {
                    "label": cell.label,
                    "metric": name,
                    "value": json_number(measured.metric.value),
                    "unit": metric["unit"],
                    "direction": metric["direction"],
                    "n": metric["n"],
                    "interval": metric["interval"],
                    "definition": measured.definition,
                    "environment": measured.environment,
                    "axes": dict(sorted(cell.axes.items())),
                    "pairing": metric["pairing"],
                    "replicates": metric["replicates"],
                }
            )
    values.sort(key=lambda value: (value["label"], sorted(value["axes"].items()), value["metric"]))
    head = {
        "schema": SCHEMA,
        "created_from": baseline.created_from,
        "suite": baseline.suite,
        "environments": {name: dict(e) for name, e in sorted(baseline.environments.items())},
        "definitions": dict(sorted(definitions.items())),
    }
    lines = ",\n".join(f"  {json.dumps(value, allow_nan=False)}" for value in values)
    text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
    write_atomically(path, f'{text},\n "values": [\n{lines}\n ]\n}}\n')


def load_baseline(path: Path) -> Baseline:
    """The baseline in a file.

    Raises:
        SuiteError: it cannot be read, is of another schema, or was edited so that a definition no
            longer fits its id.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SuiteError(
            f"cannot read the baseline '{path}': {error.strerror}. "
            "'tfq-bench baseline save RUN -o FILE' makes one."
        ) from None
    except ValueError as error:
        raise SuiteError(f"the baseline '{path}' is not JSON: {error}.") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise SuiteError(
            f"expected a baseline of schema {SCHEMA} in '{path}', found {schema!r}. "
            "'tfq-bench baseline save RUN -o FILE' makes one."
        )
    try:
        return _parse(content, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SuiteError(
            f"the baseline '{path}' is damaged ({type(error).__name__}: {error}). Save it anew."
        ) from None


def _parse(content: Mapping[str, Any], path: Path) -> Baseline:
    environments = content["environments"]
    definitions = content["definitions"]
    for name, fields in definitions.items():
        found = definition_id(MetricDefinition(**fields))
        if found != name:
            raise SuiteError(
                f"the baseline '{path}' was edited: the definition '{name}' now has the id "
                f"'{found}'. Save the baseline anew."
            )
    cells: dict[str, tuple[dict[str, Any], dict[str, Measured]]] = {}
    for value in content["values"]:
        metric = metric_from_json(
            {**definitions[value["definition"]], **value, "reference": None, "series": {}}
        )
        identity = json.dumps(value["axes"], sort_keys=True)
        _, values = cells.setdefault(identity, (value, {}))
        values[value["metric"]] = Measured(
            metric=metric,
            definition=value["definition"],
            environment=value["environment"],
            hardware=environments.get(value["environment"], {}).get("hardware"),
        )
    return Baseline(
        created_from=content["created_from"],
        suite=content["suite"],
        environments=environments,
        cells=tuple(
            CellFacts(key="", label=value["label"], axes=value["axes"], status="ok", values=values)
            for value, values in cells.values()
        ),
    )


def _finite(cell: CellFacts) -> CellFacts:
    return CellFacts(
        key=cell.key,
        label=cell.label,
        axes=cell.axes,
        status=cell.status,
        values={
            name: measured
            for name, measured in cell.values.items()
            if math.isfinite(measured.metric.value)
        },
    )


def _describe(environment: Mapping[str, Any]) -> dict[str, str]:
    hardware = environment.get("hardware")
    if hardware is None:
        return {"description": "unknown hardware"}
    gpus = ", ".join(gpu["name"] for gpu in hardware.get("gpus", ())) or "no GPU"
    words = f"{hardware.get('cpu')}, {hardware.get('usable_cores')} cores, {gpus}"
    return {"hardware": hardware_fingerprint(environment), "description": words}
