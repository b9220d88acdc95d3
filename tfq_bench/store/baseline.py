"""A baseline: the reviewed numbers of a run, as one file that belongs into version control.

It holds no dates and its order is fixed, so that saving the same run again gives the same file.
Each value stands on a line of its own, for reviews. A checksum over all of it refuses numbers that
were changed, added or lost since it was saved; how the file is laid out does not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfq_bench.errors import SuiteError
from tfq_bench.keys import definition_id
from tfq_bench.provenance.environment import hardware_fingerprint, stated_arithmetic
from tfq_bench.stats.results import CellResults, Measured, cell_facts, flaw
from tfq_bench.store.disk import write_atomically
from tfq_bench.store.record_json import DEFINITION, METRIC
from tfq_bench.store.run import RunFolder
from tfq_bench.store.seals import FIELD, open_sealed, seal
from tfq_bench.store.shapes import AXES, CHECKSUM, FINITE, TEXT, constant, fields, many, mapping

__all__ = [
    "SCHEMA",
    "Baseline",
    "baseline_of",
    "json_schema",
    "load_baseline",
    "run_facts",
    "save_baseline",
]

SCHEMA = 2

_OF_THE_METRIC = ("unit", "direction", "n", "interval", "pairing", "replicates")

_ENVIRONMENT = fields(
    {"description": TEXT},
    {
        "hardware": TEXT.described("Fingerprint: times of equal ones compare."),
        "arithmetic": mapping(TEXT).described(
            "Threads, torch, instruction sets, GPU: sums are taken in their order."
        ),
    },
)
_VALUE = fields(
    {
        "label": TEXT,
        "metric": TEXT,
        "value": FINITE,
        "definition": TEXT,
        "environment": TEXT,
        "axes": AXES,
        **{name: METRIC.required[name] for name in _OF_THE_METRIC},
    }
)
_BASELINE = fields(
    {
        "schema": constant(SCHEMA),
        FIELD: CHECKSUM.described(
            "Head of the SHA-256 of everything else as JSON with sorted keys and no spaces."
        ),
        "created_from": TEXT.described("Plan id of the run."),
        "suite": TEXT,
        "environments": mapping(_ENVIRONMENT).described("By environment id."),
        "definitions": mapping(DEFINITION.shape).described(
            "By definition id, name@digest of the other fields."
        ),
        "values": many(_VALUE),
    }
)


def json_schema() -> dict[str, Any]:
    """The JSON schema of baseline files; `schemas/baseline.schema.json` is its copy."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "TFQ-Bench baseline",
        "description": "Reviewed numbers of a run. Holds no dates: the same run gives the same "
        "file.",
        **_BASELINE.schema,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Numbers to hold later runs against.

    Args:
        created_from: plan id of the run. suite: its name.
        environments: by id `{"hardware": fingerprint, "description": words, "arithmetic": facts}`.
        cells: every cell that has numbers.
    """

    created_from: str
    suite: str
    environments: Mapping[str, Mapping[str, Any]]
    cells: tuple[CellResults, ...]


def run_facts(run: RunFolder) -> tuple[CellResults, ...]:
    """The cells of a run with their numbers, in plan order."""
    return cell_facts(run.plan(), run.records(), run.environments())


def baseline_of(run: RunFolder, *, allow_incomplete: bool = False) -> Baseline:
    """The numbers of a run that can be held against others.

    Raises:
        SuiteError: a cell or a metric failed or is not finished, or a number or its error could not
            be computed, unless `allow_incomplete`; or there are no numbers at all.
    """
    cells = run_facts(run)
    problems = [
        f"{cell.label} ({cell.status}: {cell.reason})"
        for cell in cells
        if cell.status in ("failed", "unfinished")
    ] + [
        f"{cell.label} ({name}: {flaw(measured.metric)})"
        for cell in cells
        for name, measured in cell.values.items()
        if flaw(measured.metric) is not None
    ]
    problems += [
        f"{cell.label} (metric '{name}' failed: {reason})"
        for cell in cells
        if cell.status == "ok"
        for name, reason in cell.failed_metrics.items()
    ]
    if problems and not allow_incomplete:
        raise SuiteError(
            f"expected a complete run at '{run.path}', found problems with {len(problems)}: "
            f"{'; '.join(problems[:5])}. Run the suite again, or save what there is with "
            "--allow-incomplete."
        )
    kept = tuple(_sound(cell) for cell in cells if cell.status != "failed")
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
            metric = METRIC.to_json(measured.metric)
            definitions[measured.definition] = DEFINITION.to_json(measured.metric.definition)
            values.append(
                {
                    "label": cell.label,
                    "metric": name,
                    "value": metric["value"],
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
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "created_from": baseline.created_from,
        "suite": baseline.suite,
        "environments": {name: dict(e) for name, e in sorted(baseline.environments.items())},
        "definitions": dict(sorted(definitions.items())),
    }
    head[FIELD] = seal({**head, "values": values})
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
        text = path.read_bytes()
    except OSError as error:
        raise SuiteError(
            f"cannot read the baseline '{path}': {error.strerror}. "
            "'tfq-bench baseline save RUN -o FILE' makes one.",
            file=path,
        ) from None
    try:
        return _parse(open_sealed(text, schema=SCHEMA, shape=_BASELINE))
    except ValueError as error:
        raise SuiteError(
            f"'{path}' is no baseline that can be used: {error}. Take it from version control, or "
            "save it anew with 'tfq-bench baseline save RUN -o FILE'.",
            file=path,
        ) from None


def _parse(content: Mapping[str, Any]) -> Baseline:
    environments = content["environments"]
    definitions = content["definitions"]
    for name, definition in definitions.items():
        found = definition_id(DEFINITION.from_json(definition))
        if found != name:
            raise ValueError(f"the definition '{name}' now has the id '{found}'")
    cells: dict[str, tuple[dict[str, Any], dict[str, Measured]]] = {}
    for value in content["values"]:
        definition = definitions.get(value["definition"])
        where = f"{value['metric']} of {value['label']}"
        if definition is None or definition["name"] != value["metric"]:
            raise ValueError(f"expected a definition of {where}, found '{value['definition']}'")
        metric = METRIC.from_json({**definition, **value, "reference": None, "series": {}})
        identity = json.dumps(value["axes"], sort_keys=True)
        _, values = cells.setdefault(identity, (value, {}))
        if value["metric"] in values:
            raise ValueError(f"expected {where} once, found it twice")
        values[value["metric"]] = Measured(
            metric=metric,
            definition=value["definition"],
            environment=value["environment"],
            hardware=environments.get(value["environment"], {}).get("hardware"),
            arithmetic=environments.get(value["environment"], {}).get("arithmetic", {}),
        )
    return Baseline(
        created_from=content["created_from"],
        suite=content["suite"],
        environments=environments,
        cells=tuple(
            CellResults(
                key="", label=value["label"], axes=value["axes"], status="ok", values=values
            )
            for value, values in cells.values()
        ),
    )


def _sound(cell: CellResults) -> CellResults:
    kept = {name: value for name, value in cell.values.items() if flaw(value.metric) is None}
    return replace(cell, values=kept)


def _describe(environment: Mapping[str, Any]) -> dict[str, Any]:
    hardware, arithmetic = environment.get("hardware"), stated_arithmetic(environment)
    if hardware is None:
        return {"description": "unknown hardware", "arithmetic": arithmetic}
    gpus = ", ".join(gpu["name"] for gpu in hardware.get("gpus", ())) or "no GPU"
    words = f"{hardware.get('cpu')}, {hardware.get('usable_cores')} cores, {gpus}"
    return {
        "hardware": hardware_fingerprint(environment),
        "description": words,
        "arithmetic": arithmetic,
    }
