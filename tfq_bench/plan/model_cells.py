"""The cells of a model: the points of the grid that a suite spans with it, and their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import BrokenPlugin, SuiteError, nearest
from tfq_bench.host.described import shown
from tfq_bench.plan.components import component_of
from tfq_bench.plan.foreseen import remarks
from tfq_bench.plan.grid import matches, schemes, unsupported
from tfq_bench.plan.plan import EAGER, EXTERNAL, PlannedCell, StageKeys, cell_axes
from tfq_bench.plan.refusals import refusal
from tfq_bench.plan.stage_keys import KeyMaker, Made
from tfq_bench.plan.suite import Entry, SuiteSpec
from tfq_bench.providers import (
    BackendProvider,
    MetricProvider,
    ModelProvider,
    Provider,
    QuantizerProvider,
)
from tfq_bench.types import Cell, Component, Execution, Scheme

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.types.models import Model

__all__ = ["ModelCells"]

_Executed = tuple[BackendProvider | None, Component, str | None]
"""A backend, its component as the cell has it, and why it cannot run the cell, None if it can."""


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


class ModelCells:
    """Makes the cells of a suite, a model at a time.

    Args:
        metrics: all that the run has, the host's own among them.

    Attributes:
        gmac: by model name, see `Plan`.
        remarks: what models say of how they were read; each once, in order.
        idle: exclusions that matched no cell yet.
        timed: whether a metric of the suite reads timings.
    """

    def __init__(
        self, spec: SuiteSpec, table: PluginTable, keys: KeyMaker, metrics: tuple[Component, ...]
    ) -> None:
        self._spec, self._table, self._keys, self._metrics = spec, table, keys, metrics
        self.gmac: dict[str, float] = {}
        self.remarks: dict[str, None] = {}
        self.idle = list(spec.excludes)
        asked: list[MetricProvider] = [table.get("metric", entry.name) for entry in spec.metrics]
        self.timed = any(provider.timed for provider in asked)
        self._metric_plugins = {table.distribution_of(provider) for provider in asked}

    def of(self, entry: Entry) -> Iterator[PlannedCell]:
        """The cells of a model, in the order of the suite's quantizers.

        Raises:
            SuiteError, BrokenPlugin: see `planner.make_plan`.
        """
        component = component_of(self._spec, self._table, "model", entry)
        provider = self._table.get("model", entry.name)
        assert isinstance(provider, ModelProvider)
        self.gmac[component.name] = provider.gmac
        model: Model = self._table.create(provider, **component.options)
        basis = self._basis(provider, component, model)
        drafts = list(self._drafts(provider, component, basis, model.digest))
        full = next((draft for draft in drafts if draft.execution == "full-precision"), None)
        reference = self._keys.samples(full.lower) if full else None
        for draft in drafts:
            measure = self._keys.measure(draft.lower, draft.execution) if self.timed else None
            samples = self._keys.samples(draft.lower)
            evaluate = [
                self._keys.evaluate(metric, samples, reference, measure) for metric in self._metrics
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
                plugins=tuple(sorted({*draft.plugins, *self._metric_plugins})),
            )

    def _basis(self, provider: ModelProvider, component: Component, model: Model) -> Made:
        sampler = str(self._spec.sampling["sampler"]) or provider.samplers[0]
        if sampler not in provider.samplers:
            raise SuiteError(
                f"[sampling]: model '{component.name}' has no sampler '{sampler}'; "
                f"{nearest(sampler, provider.samplers)}"
            )
        made = self._keys.basis(provider, component, model, sampler)
        self.remarks |= dict.fromkeys(remarks(model, component.name, sampler))
        return made

    def _drafts(
        self, provider: ModelProvider, model: Component, basis: Made, source: str
    ) -> Iterator[_Draft]:
        for entry in self._spec.quantizers:
            method = self._table.get("quantizer", entry.name)
            assert isinstance(method, QuantizerProvider)
            quantizer = component_of(self._spec, self._table, "quantizer", entry)
            for scheme in schemes(entry, method):
                full = scheme.label == "FP"
                tools, executions = self._executions(method, quantizer, scheme)
                for seed in self._spec.seeds[:1] if full else self._spec.seeds:
                    calibrate, quantize = self._keys.quantize(
                        basis, method, quantizer, scheme, seed, tools=tools
                    )
                    for backend, component, skip in executions:
                        lower = self._keys.lower(quantize, backend, component)
                        cell = Cell(
                            key=self._keys.cell(lower),
                            model=model,
                            quantizer=quantizer,
                            scheme=scheme,
                            backend=component,
                            seed=seed,
                        )
                        if self._excluded(cell):
                            continue
                        used = (provider, *method.parts, *([backend] if backend else []))
                        portable = self._portable(cell, provider, method, backend, source)
                        yield _Draft(
                            cell=cell,
                            axes=cell_axes(portable),
                            execution=_execution(method, backend),
                            calibrate=calibrate,
                            quantize=quantize,
                            lower=lower,
                            skip=skip,
                            plugins=(*(self._table.distribution_of(p) for p in used), *tools),
                        )

    def _excluded(self, cell: Cell) -> bool:
        found = [exclude for exclude in self._spec.excludes if matches(exclude, cell)]
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
            content = self._keys.content(provider, component, source=source)
            return replace(component, options=content)

        return replace(
            cell,
            model=portable(model, cell.model, source),
            quantizer=portable(quantizer, cell.quantizer, ""),
            backend=portable(backend, cell.backend, ""),
        )

    def _executions(
        self, method: QuantizerProvider, quantizer: Component, scheme: Scheme
    ) -> tuple[tuple[str, ...], list[_Executed]]:
        """The tools of a contestant, and what executes the scheme, with the reason if it cannot."""
        if method.external:
            tool = self._table.create(method, scheme=scheme, **quantizer.options)
            skip = refusal(self._table, method, tool, device=self._spec.device)
            tools = () if skip else _tools(tool, self._table.where(method))
            return tools, [(None, Component(name=EXTERNAL), skip)]
        if scheme.label == "FP":
            return (), [(None, Component(name=EAGER), None)]
        return (), self._backends(scheme)

    def _backends(self, scheme: Scheme) -> list[_Executed]:
        if not self._spec.backends:
            raise SuiteError(
                f"suite '{self._spec.name}' quantizes but names no [[backend]]; "
                "name at least 'simulate'."
            )
        first = list(self._entries(scheme, standby=False))
        if any(skip is None for *_, skip in first):
            return first
        return [*first, *self._entries(scheme, standby=True)]

    def _entries(self, scheme: Scheme, *, standby: bool) -> Iterator[_Executed]:
        for entry in self._spec.backends:
            if entry.standby != standby:
                continue
            provider = self._table.get("backend", entry.name)
            assert isinstance(provider, BackendProvider)
            component = component_of(self._spec, self._table, "backend", entry)
            skip = unsupported(provider, scheme, self._spec.device)
            if skip is None:
                backend = self._table.create(provider, **component.options)
                skip = refusal(self._table, provider, backend, device=self._spec.device)
                if skip and not entry.optional:
                    raise SuiteError(
                        f"backend '{entry.name}' cannot run here: {skip} "
                        "Leave it out, or write 'optional = true' in its [[backend]] table."
                    )
            yield provider, component, skip


def _execution(method: QuantizerProvider, backend: BackendProvider | None) -> Execution:
    if backend is not None:
        return backend.execution
    return "external" if method.external else "full-precision"


def _tools(contestant: Any, where: str) -> tuple[str, ...]:
    """`name==version` of what a contestant runs, as records will have it.

    Raises:
        BrokenPlugin: it says something else.
    """
    found = getattr(contestant, "packages", None)
    fits = isinstance(found, tuple) and all(
        isinstance(one, str) and re.fullmatch(r"[\w.-]+==[\w.+!-]+", one) for one in found
    )
    if not found or not fits:
        raise BrokenPlugin(
            f"{where}: `packages` is expected to be a tuple of 'name==version', at least one, "
            f"found {shown(found)}."
        )
    return tuple(map(str, found))
