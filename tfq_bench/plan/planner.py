"""A suite and the installed plugins become a plan.

Planning runs nothing: it may import a model's plugin to learn the digest of its weights, but loads
no network.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import NothingToDo, PluginConflict, SuiteError
from tfq_bench.host.inspection import HOST
from tfq_bench.keys import digest
from tfq_bench.plan.components import component_of
from tfq_bench.plan.foreseen import Asked, cautions, refuse_equal
from tfq_bench.plan.grid import refuse_absurd, variants
from tfq_bench.plan.inventory import require_assets
from tfq_bench.plan.model_cells import ModelCells
from tfq_bench.plan.notes import plan_notes
from tfq_bench.plan.plan import Plan, PlannedCell
from tfq_bench.plan.stage_keys import KeyMaker
from tfq_bench.plan.suite import Entry, SuiteSpec
from tfq_bench.types import SANITY, Cell, Component, OptionValue

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable

__all__ = ["make_plan"]


def make_plan(spec: SuiteSpec, table: PluginTable) -> Plan:
    """The plan of a suite with what is installed.

    Raises:
        SuiteError: an unknown provider or option, impossible bits, a policy that is not offered,
            or a backend that this machine cannot run and the suite does not call optional.
        AssetError: components without their files (all are named), or an option that names no file.
        BrokenPlugin: a plugin's code raises while it is asked what it is or where it runs.
        NothingToDo: no cell is left.
    """
    with contextlib.redirect_stdout(sys.stderr):  # plugins are asked, and a plan may be JSON
        return _Planner(spec, table).plan()


class _Planner:
    def __init__(self, spec: SuiteSpec, table: PluginTable) -> None:
        self.spec = spec
        self.table = table
        images, shard = int(spec.sampling["images"]), int(spec.sampling["shard"])
        refuse_absurd(spec, shards=-(-images // shard))
        self.shards = tuple(
            (start, min(start + shard, images)) for start in range(0, images, shard)
        )
        self.keys = KeyMaker(spec, table, self.shards)

    def plan(self) -> Plan:
        metrics = tuple(
            component_of(self.spec, self.table, "metric", entry)
            for entry in (*self.spec.metrics, *self._controls())
        )
        require_assets(self.spec, self.table)  # all at once, and before any work starts
        asked = tuple(map(self._asked, metrics))  # wrong weights are told then too
        refuse_equal(asked)
        notes = tuple(cautions(asked, int(self.spec.sampling["images"])))
        for entry in self.spec.backends:  # wrong ones are told even where no cell would use them
            component_of(self.spec, self.table, "backend", entry)
        made = ModelCells(self.spec, self.table, self.keys, metrics)
        cells = tuple(planned for entry in self.spec.models for planned in made.of(entry))
        _refuse_twins(cells)
        cells = tuple(
            replace(planned, cell=replace(planned.cell, variant=variant))
            for planned, variant in zip(
                cells, variants([self._shown(p) for p in cells], self._defaults()), strict=True
            )
        )
        if not any(planned.skip is None for planned in cells):
            skips = sorted({p.skip for p in cells if p.skip})
            reasons = "; ".join(skips) or "its [[exclude]] tables leave nothing"
            raise NothingToDo(f"suite '{self.spec.name}' has no cell to run: {reasons}.")
        vain = plan_notes(self.spec, cells, idle=made.idle, timed=made.timed)
        return Plan(
            id=digest(
                {
                    "suite": self.spec.name,
                    "cells": [p.cell.key for p in cells],
                    "evaluate": [p.keys.evaluate for p in cells],
                    "skips": [p.skip for p in cells],
                }
            ),
            spec=self.spec,
            cells=cells,
            shards=self.shards,
            metrics=metrics,
            measured_by=tuple(one.measured_by for one in asked),
            gmac=made.gmac,
            ingredients=self.keys.ingredients,
            code=self.keys.code,
            notes=(*notes, *made.remarks, *vain),
        )

    def _controls(self) -> tuple[Entry, ...]:
        """What every run has, whether the suite names it or not."""
        control = self.table.get("metric", f"{HOST}:{SANITY}")
        if any(self.table.get("metric", entry.name) is control for entry in self.spec.metrics):
            return ()
        try:
            self.table.get("metric", SANITY)
        except PluginConflict:  # the name is taken twice; a suite that does not use it still runs
            return (Entry(name=f"{HOST}:{SANITY}", given={}),)
        return (Entry(name=SANITY, given={}),)

    def _asked(self, component: Component) -> Asked:
        provider = self.table.get("metric", component.name)
        return Asked(
            component=component,
            provider=provider,
            content=self.keys.content(provider, component),
            metric=self.table.create(provider, **component.options),
            distribution=self.table.distribution_of(provider),
        )

    def _shown(self, planned: PlannedCell) -> Cell:
        """The cell as labels show it: of a path the last part, and of its content the digest."""

        def shown(component: Component, axis: str) -> Component:
            content: dict[str, OptionValue] = json.loads(planned.axes[f"{axis}_options"])
            return replace(
                component,
                options={
                    name: f"{Path(str(value)).name}@{str(content[name])[:8]}"
                    if content[name] != value
                    else value
                    for name, value in component.options.items()
                },
            )

        cell = planned.cell
        return replace(
            cell,
            model=shown(cell.model, "model"),
            quantizer=shown(cell.quantizer, "quantizer"),
            backend=shown(cell.backend, "backend"),
        )

    def _defaults(self) -> dict[str, OptionValue]:
        entries = {
            "quantizer": self.spec.quantizers,
            "model": self.spec.models,
            "backend": self.spec.backends,
        }
        return {
            f"{entry.name}.{option.name}": option.default
            for kind, found in entries.items()
            for entry in found
            for option in self.table.get(kind, entry.name).options
        }


def _refuse_twins(cells: tuple[PlannedCell, ...]) -> None:
    """Keys are places on the disk; axes are what baselines, gates and comparisons go by."""
    seen: set[object] = set()
    for planned in cells:
        identities = {planned.cell.key, frozenset(planned.axes.items())}
        if identities & seen:
            raise SuiteError(
                f"the suite asks twice for the cell '{planned.cell.label}'; remove one of them."
            )
        seen |= identities
