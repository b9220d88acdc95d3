"""A suite and the installed plugins become a plan.

Planning runs nothing: it may import a model's plugin to learn the digest of its weights, but loads
no network. Each key is made of everything that its stage's result depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench import __version__
from tfq_bench.border import Cell, Component, Scheme
from tfq_bench.errors import (
    AssetError,
    BrokenPlugin,
    LoweringError,
    NothingToDo,
    SuiteError,
    TfqError,
    nearest,
)
from tfq_bench.grid import matches, schemes, unsupported
from tfq_bench.keys import content_digest, digest
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
        SuiteError: an unknown provider or option, impossible bits, a policy that is not offered,
            or a backend that this machine cannot run and the suite does not call optional.
        AssetError: a metric or model without its files, or an option that names no file.
        BrokenPlugin: a model's code raises while it is asked what it is.
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
        self.digests: dict[str, str] = {}
        images, shard = int(spec.sampling["images"]), int(spec.sampling["shard"])
        self.shards = tuple(
            (start, min(start + shard, images)) for start in range(0, images, shard)
        )

    def plan(self) -> Plan:
        metrics = tuple(self._component("metric", entry) for entry in self.spec.metrics)
        _refuse_equal_metrics(metrics)
        for component in metrics:  # missing weights are told before any work starts
            self.table.create(self.table.get("metric", component.name), **component.options)
        for entry in self.spec.backends:  # wrong ones are told even where no cell would use them
            self._component("backend", entry)
        cells = tuple(
            planned for entry in self.spec.models for planned in self._model_cells(entry, metrics)
        )
        _refuse_twins(cells)
        if not any(planned.skip is None for planned in cells):
            skips = sorted({p.skip for p in cells if p.skip})
            reasons = "; ".join(skips) or "its [[exclude]] tables leave nothing"
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

    def _content(self, provider: Provider, options: Mapping[str, OptionValue]) -> dict[str, Any]:
        """The options as they enter keys: a file counts by its bytes, not by where it lies."""
        content: dict[str, Any] = dict(options)
        for option in provider.options:
            if option.kind != "path" or not options[option.name]:
                continue
            path = str(options[option.name])
            if path not in self.digests:
                try:
                    self.digests[path] = content_digest(Path(path))
                except OSError as error:
                    raise AssetError(
                        f"{provider.kind} '{provider.name}': option '{option.name}' names {path}, "
                        f"which cannot be read: {error.strerror}. Correct the path; a relative one "
                        "starts at the suite's folder."
                    ) from error
            content[option.name] = self.digests[path]
        return content

    def _model_cells(self, entry: Entry, metrics: tuple[Component, ...]) -> Iterator[PlannedCell]:
        component = self._component("model", entry)
        provider = self.table.get("model", entry.name)
        assert isinstance(provider, ModelProvider)
        self.gmac[component.name] = provider.gmac
        basis = self._basis(entry, component, provider)
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

    def _basis(self, entry: Entry, component: Component, provider: ModelProvider) -> str:
        """Digest of what every key of the model's cells depends on."""
        name = str(self.spec.sampling["sampler"]) or provider.samplers[0]
        if name not in provider.samplers:
            raise SuiteError(
                f"[sampling]: model '{entry.name}' has no sampler '{name}'; "
                f"{nearest(name, provider.samplers)}"
            )
        model = self.table.create(provider, **component.options)
        plugin = self.table.distribution_of(provider)
        steps = int(self.spec.sampling["steps"])
        paths = {option.name for option in provider.options if option.kind == "path"}
        try:
            return digest(
                {
                    "model": model.digest,  # covers what its files hold
                    "options": {k: v for k, v in component.options.items() if k not in paths},
                    "plugin": plugin,
                    "host": __version__,
                    "sampler": name,
                    "sampler definition": model.sampler(name, steps).definition,
                    "device": self.spec.device,
                    "threads": self.spec.threads,
                }
            )
        except TfqError:
            raise
        except Exception as error:
            raise BrokenPlugin(
                f"model '{entry.name}' ({plugin}) cannot say what it is: "
                f"{type(error).__name__}: {error}."
            ) from error

    def _drafts(self, model: Component, basis: str, provider: ModelProvider) -> Iterator[_Draft]:
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
                    for backend, component, skip in self._backends(full, scheme):
                        used = (provider, method, *([backend] if backend else []))
                        plugins = tuple(self.table.distribution_of(p) for p in used)
                        lower = digest(
                            {
                                "quantize": quantize,
                                "backend": backend.name if backend else EAGER,
                                "options": backend and self._content(backend, component.options),
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
            component = self._component("backend", entry)
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
            yield provider, component, skip

    def _quantize_keys(
        self,
        basis: str,
        provider: QuantizerProvider,
        quantizer: Component,
        scheme: Scheme,
        seed: int,
    ) -> tuple[str | None, str]:
        if scheme.label == "FP":
            return None, digest({"basis": basis, "scheme": "FP"})
        # Bits and policy are not part of it: what a method must see may not depend on them, so
        # that all widths of one method share one pass over the sampler.
        calibrate = digest(
            {
                "basis": basis,
                "calibration": self.spec.calibration,
                "seed": seed,
                "quantizer": provider.name,
                "options": self._content(provider, quantizer.options),
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
        # The sampler is in the basis, where its default has a name; images and shard are ranges.
        left = ("sampler", "images", "shard")
        return {key: value for key, value in self.spec.sampling.items() if key not in left}

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
                "metric": provider.name,
                "options": self._content(provider, metric.options),
                "plugin": self.table.distribution_of(provider),
                "samples": samples,
                "reference": reference,
                "measure": measure,
            }
        )

    def _metric_plugins(self, metrics: tuple[Component, ...]) -> set[str]:
        return {self.table.distribution_of(self.table.get("metric", m.name)) for m in metrics}


def _refuse_equal_metrics(metrics: tuple[Component, ...]) -> None:
    for number, metric in enumerate(metrics):
        if metric in metrics[:number]:
            raise SuiteError(
                f"the suite asks twice for the metric '{metric.name}' with equal options; "
                "remove one of them."
            )


def _refuse_twins(cells: tuple[PlannedCell, ...]) -> None:
    seen: dict[str, str] = {}
    for planned in cells:
        if planned.cell.key in seen:
            raise SuiteError(
                f"the suite asks twice for the cell '{planned.cell.label}'; remove one of them."
            )
        seen[planned.cell.key] = planned.cell.label
