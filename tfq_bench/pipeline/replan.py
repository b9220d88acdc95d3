"""The plan of a run for one of its cells, made again where the cell is worked on.

A stored result is what would be computed now: whoever works on a cell first makes the keys of it
anew, with what is installed where they are made. Most of planning is that (reading the code that
runs), so no cheaper look at the stored plan would tell as much. But only what takes part in the
work is looked at: one model, the cell's own method, backend and reference, and metrics where they
are computed. When anything is otherwise, the whole suite is planned, which says what moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import StoreError, SuiteError, TfqError
from tfq_bench.pipeline.changes import differences
from tfq_bench.pipeline.guard.functions import unreplaced
from tfq_bench.plan.plan import StageKeys
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import parse_suite

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.plan.plan import Plan
    from tfq_bench.plan.suite import Entry, SuiteSpec
    from tfq_bench.store.run import RunFolder

__all__ = ["plan_again"]


def plan_again(folder: RunFolder, table: PluginTable, cell: str, stage: str | None) -> Plan:
    """The plan of the run, with at least the cell and the cell it is compared with.

    Args:
        cell: how its key begins. stage: what is to be done of it, None for everything.

    Raises:
        StoreError: the suite cannot be read.
        SuiteError: what is installed now, or here, gives another plan.
        TfqError: what is installed cannot be planned with.
    """
    stored = folder.plan()
    spec = _suite(folder, stored)
    with unreplaced():
        with contextlib.suppress(TfqError):  # the whole suite tells it better
            plan = _of_cell(spec, table, stored, cell, stage)
            if plan is not None:
                return plan
        plan = make_plan(spec, table)
    if plan.id != stored["id"]:
        moved = "; ".join(differences(stored, plan))
        raise SuiteError(
            f"'{folder.path}' was planned as {stored['id']}; with what is installed now its suite "
            f"gives plan {plan.id}{f' ({moved})' if moved else ''}. 'tfq-bench run' plans it anew."
        )
    return plan


def _suite(folder: RunFolder, stored: Mapping[str, Any]) -> SuiteSpec:
    path = folder.path / "suite.toml"
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read '{path}': {error}. Run the suite again.") from error
    return parse_suite(text, str(path), Path(stored["folder"]))


def _of_cell(
    spec: SuiteSpec, table: PluginTable, stored: Mapping[str, Any], cell: str, stage: str | None
) -> Plan | None:
    """The part of the plan that a cell needs; None where it is not as it was stored."""
    cells = {one["key"]: one for one in stored["cells"]}
    chosen = [one for key, one in cells.items() if key.startswith(cell)]
    if len(chosen) != 1 or chosen[0]["status"] == "skipped":
        return None
    needed = [cells[key] for key in (chosen[0]["key"], chosen[0]["reference"]) if key in cells]

    def named(entries: tuple[Entry, ...], axis: str) -> tuple[Entry, ...]:
        names = {one["axes"].get(axis) for one in needed}
        return tuple(entry for entry in entries if entry.name in names)

    judged = stage in (None, "evaluate")
    plan = make_plan(
        replace(
            spec,
            models=named(spec.models, "model"),
            quantizers=named(spec.quantizers, "quantizer"),
            backends=named(spec.backends, "backend"),
            metrics=tuple(  # whether a cell is timed depends on some
                entry for entry in spec.metrics if judged or table.get("metric", entry.name).timed
            ),
        ),
        table,
    )
    found = {planned.cell.key: planned for planned in plan.cells}
    stages = {*StageKeys.__dataclass_fields__} - (set() if judged else {"evaluate"})
    cells_now = []
    for one in needed:
        planned = found.get(one["key"])
        if planned is None or planned.skip is not None or planned.reference != one["reference"]:
            return None
        keys = planned.to_json()["keys"]
        if any(keys[name] != one["keys"].get(name) for name in stages):
            return None
        # As the whole suite's plan calls it: among fewer cells, a shorter name would do.
        variant = one.get("variant", "")
        cells_now.append(replace(planned, cell=replace(planned.cell, variant=variant)))
    return replace(plan, id=stored["id"], cells=tuple(cells_now))
