"""A suite and the installed plugins become a plan.

Planning runs nothing: it may import a model's plugin to learn the digest of its weights, but loads
no network.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench import interrupts
from tfq_bench.border import SANITY, Cell, Component, Scheme
from tfq_bench.components import component_of
from tfq_bench.errors import (
    BrokenPlugin,
    LoweringError,
    NothingToDo,
    PluginConflict,
    SuiteError,
    TfqError,
    nearest,
)
from tfq_bench.foreseen import Asked, cautions, refuse_equal, remarks
from tfq_bench.grid import matches, schemes, unsupported, variants
from tfq_bench.inspection import HOST, cause, out_of_memory
from tfq_bench.inventory import require_assets
from tfq_bench.keys import digest
from tfq_bench.notes import plan_notes
from tfq_bench.plan import EAGER, Plan, PlannedCell, StageKeys, cell_axes
from tfq_bench.providers import (
    BackendProvider,
    Execution,
    MetricProvider,
    ModelProvider,
    OptionValue,
    Provider,
    QuantizerProvider,
)
from tfq_bench.stage_keys import KeyMaker, Made
from tfq_bench.suite import Entry, SuiteSpec

if TYPE_CHECKING:
    from tfq_bench.host import PluginTable
    from tfq_bench.model_protocols import Model

__all__ = ["make_plan"]

MAX_CELLS, MAX_SHARDS, MAX_TASKS, MAX_EXCLUDES = 5_000, 20_000, 100_000, 100
"""Beyond these, planning takes longer than seconds."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A cell before the keys that depend on the reference cell are known."""

    cell: Cell
    axes: dict[str, str]
    execution: Execution
    calibrate: Made | None
    quantize: Made
    lower: Made
    skip: str | None
    plugins: tuple[str, ...]


class _Planner:
    def __init__(self, spec: SuiteSpec, table: PluginTable) -> None:
        self.spec = spec
        self.table = table
        self.gmac: dict[str, float] = {}
        self.remarks: dict[str, None] = {}  # each once, in order
        self.idle = list(spec.excludes)
        images, shard = int(spec.sampling["images"]), int(spec.sampling["shard"])
        _refuse_absurd(spec, shards=-(-images // shard))
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
        cells = tuple(
            planned for entry in self.spec.models for planned in self._model_cells(entry, metrics)
        )
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
        vain = plan_notes(
            self.spec, cells, idle=self.idle, timed=any(m.timed for m in self._metrics())
        )
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
            gmac=self.gmac,
            ingredients=self.keys.ingredients,
            code=self.keys.code,
            notes=(*notes, *self.remarks, *vain),
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

    def _model_cells(self, entry: Entry, metrics: tuple[Component, ...]) -> Iterator[PlannedCell]:
        component = component_of(self.spec, self.table, "model", entry)
        provider = self.table.get("model", entry.name)
        assert isinstance(provider, ModelProvider)
        self.gmac[component.name] = provider.gmac
        model: Model = self.table.create(provider, **component.options)
        basis = self._basis(provider, component, model)
        drafts = list(self._drafts(provider, component, basis, model.digest))
        full = next((draft for draft in drafts if draft.execution == "full-precision"), None)
        reference = self.keys.samples(full.lower) if full else None
        timed = any(provider.timed for provider in self._metrics())
        for draft in drafts:
            measure = self.keys.measure(draft.lower, draft.execution) if timed else None
            samples = self.keys.samples(draft.lower)
            evaluate = [
                self.keys.evaluate(metric, samples, reference, measure) for metric in metrics
            ]
            yield PlannedCell(
                cell=draft.cell,
                axes=draft.axes,
                execution=draft.execution,
                keys=StageKeys(
                    calibrate=draft.calibrate.key if draft.calibrate else None,
                    quantize=draft.quantize.key,
                    lower=draft.lower.key,
                    sample=tuple(made.key for made in samples),
                    measure=measure.key if measure else None,
                    evaluate=tuple(made.key for made in evaluate),
                ),
                made_of={
                    "calibrate": draft.calibrate.of if draft.calibrate else (),
                    "quantize": draft.quantize.of,
                    "lower": draft.lower.of,
                    "sample": samples[0].of,
                    "measure": measure.of if measure else (),
                    "evaluate": tuple(made.of for made in evaluate),
                },
                reference=full.cell.key if full and draft is not full else None,
                skip=draft.skip,
                plugins=tuple(sorted({*draft.plugins, *self._metric_plugins()})),
            )

    def _basis(self, provider: ModelProvider, component: Component, model: Model) -> Made:
        sampler = str(self.spec.sampling["sampler"]) or provider.samplers[0]
        if sampler not in provider.samplers:
            raise SuiteError(
                f"[sampling]: model '{component.name}' has no sampler '{sampler}'; "
                f"{nearest(sampler, provider.samplers)}"
            )
        made = self.keys.basis(provider, component, model, sampler)
        self.remarks |= dict.fromkeys(remarks(model, component.name, sampler))
        return made

    def _drafts(
        self, provider: ModelProvider, model: Component, basis: Made, source: str
    ) -> Iterator[_Draft]:
        for entry in self.spec.quantizers:
            method = self.table.get("quantizer", entry.name)
            assert isinstance(method, QuantizerProvider)
            quantizer = component_of(self.spec, self.table, "quantizer", entry)
            for scheme in schemes(entry, method):
                full = scheme.label == "FP"
                for seed in self.spec.seeds[:1] if full else self.spec.seeds:
                    calibrate, quantize = self.keys.quantize(basis, method, quantizer, scheme, seed)
                    for backend, component, skip in self._backends(full, scheme):
                        lower = self.keys.lower(quantize, backend, component)
                        cell = Cell(
                            key=self.keys.cell(lower),
                            model=model,
                            quantizer=quantizer,
                            scheme=scheme,
                            backend=component,
                            seed=seed,
                        )
                        if self._excluded(cell):
                            continue
                        used = (provider, method, *([backend] if backend else []))
                        portable = self._portable(cell, provider, method, backend, source)
                        yield _Draft(
                            cell=cell,
                            axes=cell_axes(portable),
                            execution=backend.execution if backend else "full-precision",
                            calibrate=calibrate,
                            quantize=quantize,
                            lower=lower,
                            skip=skip,
                            plugins=tuple(self.table.distribution_of(p) for p in used),
                        )

    def _excluded(self, cell: Cell) -> bool:
        found = [exclude for exclude in self.spec.excludes if matches(exclude, cell)]
        self.idle = [exclude for exclude in self.idle if exclude not in found]
        return bool(found)

    def _portable(
        self,
        cell: Cell,
        model: ModelProvider,
        quantizer: QuantizerProvider,
        backend: BackendProvider | None,
        source: str,
    ) -> Cell:
        """The cell with files named by their content, so that it is the same in another folder."""

        def portable(
            provider: Provider | None, component: Component, source: str = ""
        ) -> Component:
            if provider is None:
                return component
            content = self.keys.content(provider, component, source=source)
            return replace(component, options=content)

        return replace(
            cell,
            model=portable(model, cell.model, source),
            quantizer=portable(quantizer, cell.quantizer, ""),
            backend=portable(backend, cell.backend, ""),
        )

    def _backends(
        self, full: bool, scheme: Scheme
    ) -> Iterator[tuple[BackendProvider | None, Component, str | None]]:
        if full:
            yield None, Component(name=EAGER), None
            return
        if not self.spec.backends:
            raise SuiteError(
                f"suite '{self.spec.name}' quantizes but names no [[backend]]; "
                "name at least 'simulate'."
            )
        for entry in self.spec.backends:
            provider = self.table.get("backend", entry.name)
            assert isinstance(provider, BackendProvider)
            component = component_of(self.spec, self.table, "backend", entry)
            skip = unsupported(provider, scheme, self.spec.device)
            if skip is None:
                try:
                    backend = self.table.create(provider, **component.options)
                    backend.check(device=self.spec.device)
                except LoweringError as error:
                    if not entry.optional:
                        raise SuiteError(
                            f"backend '{entry.name}' cannot run here: {error} "
                            "Leave it out, or write 'optional = true' in its [[backend]] table."
                        ) from error
                    skip = str(error)
                except TfqError:
                    raise
                except BaseException as error:
                    if interrupts.asked_for(error) or out_of_memory(error):
                        raise
                    raise BrokenPlugin(
                        f"backend '{entry.name}' ({self.table.distribution_of(provider)}) cannot "
                        f"say whether it runs here: {cause(error)}."
                    ) from error
            yield provider, component, skip

    def _metrics(self) -> list[MetricProvider]:
        return [self.table.get("metric", entry.name) for entry in self.spec.metrics]

    def _metric_plugins(self) -> set[str]:
        return {self.table.distribution_of(provider) for provider in self._metrics()}


def _refuse_absurd(spec: SuiteSpec, *, shards: int) -> None:
    """SuiteError when so much is asked for that planning it would take minutes."""

    def values(entry: Entry) -> int:
        lists = (entry.given.get(key) for key in ("wbits", "abits", "policy"))
        return math.prod(max(len(one), 1) for one in lists if isinstance(one, list))

    cells = (
        len(spec.models)
        * sum(values(entry) for entry in spec.quantizers)
        * max(len(spec.backends), 1)
        * len(spec.seeds)
    )
    for what, number, most, advice in (
        ("cells", cells, MAX_CELLS, "Make several suites of it."),
        ("shards of a cell", shards, MAX_SHARDS, "Make [sampling] 'shard' larger."),
        ("tasks", cells * shards, MAX_TASKS, "Make [sampling] 'shard' larger."),
        ("numbers", cells * len(spec.metrics), MAX_TASKS, "Make several suites of it."),
        ("exclusions", len(spec.excludes), MAX_EXCLUDES, "Use patterns."),
    ):
        if number > most:
            raise SuiteError(
                f"suite '{spec.name}' asks for up to {number:,} {what}, more than the {most:,} "
                f"that are planned. {advice}"
            )


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
