"""A suite and the installed plugins become a plan.

Planning runs nothing: it may import a model's plugin to learn the digest of its weights, but loads
no network. Each key is made of everything that its stage's result depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfq_bench import __version__
from tfq_bench.border import Cell, Component, Scheme
from tfq_bench.errors import LoweringError, NothingToDo, SuiteError
from tfq_bench.grid import matches, schemes, unsupported
from tfq_bench.keys import digest
from tfq_bench.plan import EAGER, Plan, PlannedCell, StageKeys
from tfq_bench.providers import (
    BackendProvider,
    Execution,
    ModelProvider,
    OptionValue,
    Provider,
    QuantizerProvider,
    parse_options,
)
from tfq_bench.suite import Entry, SuiteSpec

if TYPE_CHECKING:
    from tfq_bench.host import PluginTable

__all__ = ["make_plan"]


def make_plan(spec: SuiteSpec, table: PluginTable) -> Plan:
    """The plan of a suite with what is installed.

    Raises:
        SuiteError: an unknown provider or option, impossible bits, a policy that is not offered.
        LoweringError: a backend that this machine cannot run and the suite does not call optional.
        AssetError: a metric or model without its files.
        NothingToDo: no cell is left.
    """
    return _Planner(spec, table).plan()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A cell before the keys that depend on the reference cell are known."""

    cell: Cell
    execution: Execution
    calibrate: str | None
    quantize: str
    lower: str
    skip: str | None
    plugins: tuple[str, ...]


class _Planner:
    def __init__(self, spec: SuiteSpec, table: PluginTable) -> None:
        self.spec = spec
        self.table = table
        self.gmac: dict[str, float] = {}
        images, shard = int(spec.sampling["images"]), int(spec.sampling["shard"])
        self.shards = tuple(
            (start, min(start + shard, images)) for start in range(0, images, shard)
        )

    def plan(self) -> Plan:
        metrics = tuple(self._component("metric", entry) for entry in self.spec.metrics)
        for component in metrics:  # missing weights are told before any work starts
            self.table.create(self.table.get("metric", component.name), **component.options)
        cells = tuple(
            planned for entry in self.spec.models for planned in self._model_cells(entry, metrics)
        )
        _refuse_twins(cells)
        if not any(planned.skip is None for planned in cells):
            reasons = "; ".join(sorted({p.skip for p in cells if p.skip})) or "no combination"
            raise NothingToDo(f"suite '{self.spec.name}' has no cell to run: {reasons}.")
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
            gmac=self.gmac,
        )

    def _component(self, kind: str, entry: Entry, drop: tuple[str, ...] = ()) -> Component:
        provider = self.table.get(kind, entry.name)
        given = {key: value for key, value in entry.given.items() if key not in drop}
        options = parse_options(provider.options, given, f"[[{kind}]] '{entry.name}'")
        return Component(name=entry.name, options=self._paths(provider, options))

    def _paths(self, provider: Provider, options: dict[str, OptionValue]) -> dict[str, OptionValue]:
        paths = {option.name for option in provider.options if option.kind == "path"}
        return {
            name: str(self.spec.folder / str(value)) if name in paths and value else value
            for name, value in options.items()
        }

    def _model_cells(self, entry: Entry, metrics: tuple[Component, ...]) -> Iterator[PlannedCell]:
        component = self._component("model", entry)
        provider = self.table.get("model", entry.name)
        assert isinstance(provider, ModelProvider)
        self.gmac[component.name] = provider.gmac
        model = self.table.create(provider, **component.options)
        name = str(self.spec.sampling["sampler"]) or provider.samplers[0]
        if name not in provider.samplers:
            raise SuiteError(
                f"[sampling]: model '{entry.name}' has no sampler '{name}', "
                f"only {', '.join(provider.samplers)}."
            )
        sampler = model.sampler(name, int(self.spec.sampling["steps"]))
        basis = {
            "model": model.digest,
            "plugin": self.table.distribution_of(provider),
            "host": __version__,
            "sampler": sampler.definition,
            "device": self.spec.device,
            "threads": self.spec.threads,
        }
        drafts = list(self._drafts(component, basis, provider))
        full = next((draft for draft in drafts if draft.execution == "full-precision"), None)
        reference = self._samples(full.lower) if full else None
        for draft in drafts:
            # The latency of a simulated network says nothing, so it is not measured.
            timed = draft.execution != "simulated"
            measure = digest({"lower": draft.lower, "timing": self.spec.timing}) if timed else None
            samples = self._samples(draft.lower)
            yield PlannedCell(
                cell=draft.cell,
                execution=draft.execution,
                keys=StageKeys(
                    calibrate=draft.calibrate,
                    quantize=draft.quantize,
                    lower=draft.lower,
                    sample=samples,
                    measure=measure,
                    evaluate=tuple(
                        self._evaluate(metric, samples, reference, measure) for metric in metrics
                    ),
                ),
                reference=full.cell.key if full and draft is not full else None,
                skip=draft.skip,
                plugins=tuple(sorted({*draft.plugins, *self._metric_plugins(metrics)})),
            )

    def _drafts(
        self, model: Component, basis: Mapping[str, Any], provider: ModelProvider
    ) -> Iterator[_Draft]:
        for entry in self.spec.quantizers:
            method = self.table.get("quantizer", entry.name)
            assert isinstance(method, QuantizerProvider)
            quantizer = self._component("quantizer", entry, drop=("wbits", "abits", "policy"))
            for scheme in schemes(entry, method):
                full = scheme.label == "FP"
                for seed in self.spec.seeds[:1] if full else self.spec.seeds:
                    calibrate, quantize = self._quantize_keys(
                        basis, method, quantizer, scheme, seed
                    )
                    for backend, options, skip in self._backends(full, scheme):
                        used = (provider, method, *([backend] if backend else []))
                        plugins = tuple(self.table.distribution_of(p) for p in used)
                        component = Component(
                            name=backend.name if backend else EAGER, options=options
                        )
                        lower = digest(
                            {
                                "quantize": quantize,
                                "backend": component.name,
                                "options": component.options,
                                "plugin": plugins[-1],
                            }
                        )
                        cell = Cell(
                            key=digest({"lower": lower, "sampling": self._sampling()}),
                            model=model,
                            quantizer=quantizer,
                            scheme=scheme,
                            backend=component,
                            seed=seed,
                        )
                        if not any(matches(exclude, cell) for exclude in self.spec.excludes):
                            yield _Draft(
                                cell=cell,
                                execution=backend.execution if backend else "full-precision",
                                calibrate=calibrate,
                                quantize=quantize,
                                lower=lower,
                                skip=skip,
                                plugins=plugins,
                            )

    def _backends(
        self, full: bool, scheme: Scheme
    ) -> Iterator[tuple[BackendProvider | None, Mapping[str, OptionValue], str | None]]:
        if full:
            yield None, {}, None
            return
        if not self.spec.backends:
            raise SuiteError(
                f"suite '{self.spec.name}' quantizes but names no [[backend]]; "
                "name at least 'simulate'."
            )
        for entry in self.spec.backends:
            provider = self.table.get("backend", entry.name)
            assert isinstance(provider, BackendProvider)
            options = self._component("backend", entry).options
            skip = unsupported(provider, scheme, self.spec.device)
            if skip is None:
                try:
                    self.table.create(provider, **options).check(device=self.spec.device)
                except LoweringError as error:
                    if not entry.optional:
                        raise SuiteError(
                            f"backend '{entry.name}' cannot run here: {error} "
                            "Leave it out, or write 'optional = true' in its [[backend]] table."
                        ) from error
                    skip = str(error)
            yield provider, options, skip

    def _quantize_keys(
        self,
        basis: Mapping[str, Any],
        provider: QuantizerProvider,
        quantizer: Component,
        scheme: Scheme,
        seed: int,
    ) -> tuple[str | None, str]:
        if scheme.label == "FP":
            return None, digest({**basis, "scheme": "FP"})
        # Bits and policy are not part of it: what a method must see may not depend on them, so
        # that all widths of one method share one pass over the sampler.
        calibrate = digest(
            {
                **basis,
                "calibration": self.spec.calibration,
                "seed": seed,
                "quantizer": quantizer.name,
                "options": quantizer.options,
                "quantizer plugin": self.table.distribution_of(provider),
            }
        )
        quantize = digest(
            {
                "calibrate": calibrate,
                "wbits": scheme.wbits,
                "abits": scheme.abits,
                "policy": scheme.policy,
            }
        )
        return calibrate, quantize

    def _sampling(self) -> dict[str, Any]:
        return {k: v for k, v in self.spec.sampling.items() if k not in ("images", "shard")}

    def _samples(self, lower: str) -> tuple[str, ...]:
        return tuple(
            digest({"lower": lower, "sampling": self._sampling(), "shard": shard})
            for shard in self.shards
        )

    def _evaluate(
        self,
        metric: Component,
        samples: tuple[str, ...],
        reference: tuple[str, ...] | None,
        measure: str | None,
    ) -> str:
        provider = self.table.get("metric", metric.name)
        return digest(
            {
                "metric": metric.name,
                "options": metric.options,
                "plugin": self.table.distribution_of(provider),
                "samples": samples,
                "reference": reference,
                "measure": measure,
            }
        )

    def _metric_plugins(self, metrics: tuple[Component, ...]) -> set[str]:
        return {self.table.distribution_of(self.table.get("metric", m.name)) for m in metrics}


def _refuse_twins(cells: tuple[PlannedCell, ...]) -> None:
    seen: dict[str, str] = {}
    for planned in cells:
        if planned.cell.key in seen:
            raise SuiteError(
                f"the suite asks twice for the cell '{planned.cell.label}'; remove one of them."
            )
        seen[planned.cell.key] = planned.cell.label
