"""Numbers of a run as rows of a history, and rows as numbers again."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from typing import Any, Protocol

from tfq_bench.errors import SuiteError
from tfq_bench.foreign.text import parse_json
from tfq_bench.keys import canonical, digest
from tfq_bench.provenance.environment import hardware_fingerprint, stated_arithmetic
from tfq_bench.stats.results import Measured, by_identity, flaw
from tfq_bench.store.baseline import run_facts
from tfq_bench.store.record_json import DEFINITION, METRIC
from tfq_bench.store.run import RunFolder
from tfq_bench.trends.series import HistoryRun, Point

__all__ = ["COLUMNS", "Row", "point_of", "rows_of", "whole"]

COLUMNS = (
    *("label", "axes", "cell", "metric", "definition", "defined", "value", "n", "low", "high"),
    *("level", "method", "pairing", "replicates", "environment", "plugins", "ingredients"),
)
"""Of `numbers`, what the checksum is over, in its order; `defined`, `environment` and (a list)
`ingredients` are ids of facts, `replicates` float64, little-endian."""

Row = dict[str, Any]


class Facts(Protocol):
    """JSON objects by their digest."""

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        """The fact; ValueError when it was changed or lost."""


def rows_of(
    folder: RunFolder, *, allow_incomplete: bool
) -> tuple[list[Row], dict[str, str], tuple[str, ...]]:
    """Rows of `numbers`, the facts that they name, and what was left out.

    Raises:
        SuiteError: a cell is not finished, unless `allow_incomplete`.
        NotComparable: two cells have one place in the grid.
    """
    results = {cell.key: cell for cell in by_identity(run_facts(folder)).values()}
    unfinished = [cell for cell in results.values() if cell.status == "unfinished"]
    if unfinished and not allow_incomplete:
        raise SuiteError(
            f"expected a finished run at '{folder.path}', found {len(unfinished)} unfinished "
            f"cells: {unfinished[0].label} ({unfinished[0].reason}). Run the suite again, or add "
            "what there is with --allow-incomplete."
        )
    left_out = [
        f"{cell.label}: {cell.status}, {cell.reason}"
        for cell in results.values()
        if cell.status == "failed"
    ]
    plan, environments = folder.plan(), folder.environments()
    cells = {cell["key"]: cell for cell in plan["cells"]}
    facts: dict[str, str] = {}
    rows = []
    for record in folder.records():
        if record.metric is None or results[record.cell].status == "failed":
            continue
        if (wrong := flaw(record.metric)) is not None:
            left_out.append(f"{record.label}, {record.metric.definition.name}: {wrong}")
            continue
        interval = record.metric.interval
        row: Row = {
            "label": record.label,
            "axes": canonical(record.axes),
            "cell": record.cell,
            "metric": record.metric.definition.name,
            "definition": record.definition,
            "defined": _noted(facts, DEFINITION.to_json(record.metric.definition)),
            "value": float(record.metric.value),
            "n": record.metric.n,
            "low": None if interval is None else float(interval.low),
            "high": None if interval is None else float(interval.high),
            "level": None if interval is None else float(interval.level),
            "method": None if interval is None else interval.method,
            "pairing": record.metric.pairing,
            "replicates": array("d", record.metric.replicates).tobytes(),
            "environment": _noted(facts, environments.get(record.environment, {})),
            "plugins": json.dumps(record.plugins),
            "ingredients": json.dumps(
                [
                    _noted(facts, one)
                    for one in _ingredients(plan, cells[record.cell], record.source)
                ]
            ),
        }
        rows.append({**row, "checked": _checksum(row)})
    return rows, facts, tuple(left_out)


def _ingredients(
    plan: Mapping[str, Any], cell: Mapping[str, Any], source: str | None
) -> list[Mapping[str, Any]]:
    """What the evaluation `source` of a cell is made of; empty where the plan does not say."""
    try:
        made_of = cell["made_of"]["evaluate"][cell["keys"]["evaluate"].index(source)]
        return [plan["ingredients"][name] for name in made_of]
    except (KeyError, ValueError, IndexError, TypeError):  # of a version that did not note it
        return []


def _noted(facts: dict[str, str], content: Mapping[str, Any]) -> str:
    name = digest(content)
    facts[name] = canonical(content)
    return name


def _unpacked(content: bytes) -> list[float]:
    numbers = array("d")
    numbers.frombytes(content)
    return numbers.tolist()


def _checksum(row: Mapping[str, Any]) -> str:
    """16 hexadecimal digits over a row of `numbers`."""
    shown = {name: row[name] for name in COLUMNS}
    shown["replicates"] = hashlib.sha256(shown["replicates"]).hexdigest()
    return digest(shown)


def whole(row: Row) -> Row:
    """The row; ValueError when it is not as it was written."""
    if _checksum(row) != row["checked"]:
        raise ValueError(
            f"the number '{row['metric']}' of '{row['label']}' in run {row['run']} was changed"
        )
    return row


def point_of(row: Row, run: HistoryRun, facts: Facts) -> Point:
    """The number of a row of `run`; ValueError when a fact of it was changed or lost."""
    environment = facts[row["environment"]]
    interval = None
    if row["low"] is not None:
        interval = {name: row[name] for name in ("low", "high", "level", "method")}
    metric = METRIC.from_json(
        {
            **facts[row["defined"]],
            "value": row["value"],
            "n": row["n"],
            "interval": interval,
            "replicates": _unpacked(row["replicates"]),
            "pairing": row["pairing"],
            "reference": None,
            "series": {},
        }
    )
    return Point(
        run=run,
        measured=Measured(
            metric=metric,
            definition=row["definition"],
            environment=row["environment"],
            hardware=hardware_fingerprint(environment) if "hardware" in environment else None,
            arithmetic=stated_arithmetic(environment),
        ),
        key=row["cell"],
        plugins=tuple(parse_json(row["plugins"])),
        ingredients=tuple(facts[name] for name in parse_json(row["ingredients"])),
        environment=environment,
    )
