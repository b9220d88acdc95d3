"""What the key of every stage is made of: all that its result depends on, and nothing else.

    what is computed   the suite's numbers, options, files by their bytes, the model's digest
    by which code      each provider's factory and all that it imports, see `provenance`: files by
                       their bytes, libraries (torch among them) and Python by their versions
    by which kernels   vendor and instruction sets of the processor, name of the GPU, and settings
                       that make libraries take other kernels, see `environment.arithmetic_facts`
    how fast           of timings only: the machine, see `environment.speed_facts`

Never among it: worker counts, places of files, dates, and what other cells do. The number of images
and the shards are in the keys of samples only, as index ranges, so that a suite with more images
finds the first ones done.

All that keys are made of stands in `KeyMaker.ingredients`, which the plan keeps, so that a later
plan can say what moved.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.assets.declared import sha256_of
from tfq_bench.errors import AssetError, BrokenPlugin, TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.host.inspection import cause, out_of_memory
from tfq_bench.keys import canonical, digest
from tfq_bench.plan.inventory import asset_identities
from tfq_bench.provenance.environment import arithmetic_facts, speed_facts
from tfq_bench.provenance.running_code import RunningCode
from tfq_bench.providers import BackendProvider, ModelProvider, Provider, QuantizerProvider
from tfq_bench.types import Component, Execution, Scheme

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.plan.suite import SuiteSpec
    from tfq_bench.types.models import Model

__all__ = ["KeyMaker", "Made"]

STAGES = ("tfq_bench.pipeline.cell", "tfq_bench.pipeline.cell_context")
"""Modules of the host from which everything is reached that takes part in every result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a stage leaves: its key, and the ids of the ingredients of it and all before it."""

    key: str
    of: tuple[str, ...]


class KeyMaker:
    """Makes the keys of one suite's cells with what is installed; files are read once.

    Args:
        shards: index ranges [start, stop) of the images.
    """

    def __init__(
        self, spec: SuiteSpec, table: PluginTable, shards: tuple[tuple[int, int], ...]
    ) -> None:
        self._spec = spec
        self._table = table
        self._shards = shards
        self._files: dict[str, str] = {}
        self._components: dict[tuple[str, str, str], str] = {}
        self.code = RunningCode()
        self.ingredients: dict[str, dict[str, Any]] = {}
        # The sampler is in the basis, where its default has a name; images and shard are ranges.
        left = ("sampler", "images", "shard")
        self._sampling = {key: value for key, value in spec.sampling.items() if key not in left}

    def content(
        self, provider: Provider, component: Component, *, source: str = ""
    ) -> dict[str, Any]:
        """The options as they enter keys: a file counts by its bytes, not by where it lies.

        Args:
            source: digest of what options of the kind `source` name, where that is a path; without
                it the host reads what lies there.

        Raises:
            AssetError: an option names a file that cannot be read.
        """
        content: dict[str, Any] = dict(component.options)
        for option in provider.options:
            path = str(component.options[option.name] or "")
            located = option.kind == "source" and Path(path).is_absolute()
            if not path or not (option.kind == "path" or located):
                continue
            if located and source:
                content[option.name] = source
                continue
            if path not in self._files:
                try:
                    self._files[path] = self.code.content(Path(path))
                except (OSError, ValueError) as error:  # ValueError: a name that none can have
                    raise AssetError(
                        f"{provider.kind} '{provider.name}': option '{option.name}' names {path!r},"
                        f" which cannot be read: {getattr(error, 'strerror', None) or error}. "
                        "Correct the path; a relative one starts at the suite's folder."
                    ) from error
            content[option.name] = self._files[path]
        return content

    def basis(
        self, provider: ModelProvider, component: Component, model: Model, sampler: str
    ) -> Made:
        """What every key of the model's cells depends on.

        Raises:
            BrokenPlugin: the model's code raises when it is asked what it is.
        """
        steps = int(self._spec.sampling["steps"])
        try:
            facts = {
                **self._running(provider),
                **_options(self.content(provider, component, source=model.digest)),
                "content": model.digest,
                "sampler": sampler,
                "steps": steps,
                "definition": digest(model.sampler(sampler, steps).definition),
            }
            own = self._note(f"model '{provider.name}'", facts)
        except TfqError:
            raise
        except BaseException as error:
            if interrupts.asked_for(error) or out_of_memory(error):
                raise
            raise BrokenPlugin(
                f"model '{component.name}' ({self._table.distribution_of(provider)}) cannot say "
                f"what it is: {cause(error)}."
            ) from error
        suite = {"suite.device": self._spec.device, "suite.threads": self._spec.threads}
        return self._made((), *self._everywhere, self._note("suite", suite), own)

    def quantize(
        self,
        basis: Made,
        provider: QuantizerProvider,
        component: Component,
        scheme: Scheme,
        seed: int,
        *,
        tools: tuple[str, ...] = (),
    ) -> tuple[Made | None, Made]:
        """Keys of calibration, None for full precision, and of what is quantized.

        Args:
            tools: `name==version` of what quantizes and executes a contestant's cell.
        """
        if scheme.label == "FP":
            return None, self._made((basis,), scheme="FP")
        # Bits and policy are not part of it: what a method must see may not depend on them, so
        # that all widths of one method share one pass over the sampler.
        calibrate = self._made(
            (basis,),
            self._section("calibration", self._spec.calibration),
            self._component(provider, component),
            seed=seed,
        )
        versions = dict(tool.split("==", 1) for tool in tools)
        used = {f"version of {name}": version for name, version in versions.items()}
        quantize = self._made(
            (calibrate,),
            *([self._note(f"tools of '{provider.name}'", used)] if tools else []),
            wbits=scheme.wbits,
            abits=scheme.abits,
            policy=scheme.policy,
        )
        return calibrate, quantize

    def lower(
        self,
        quantize: Made,
        provider: BackendProvider | None,
        component: Component,
    ) -> Made:
        """Key of the executable network; without a backend it is the model's own or the tool's."""
        if provider is None:
            return self._made((quantize,), backend=component.name)
        return self._made((quantize,), self._component(provider, component))

    def cell(self, lower: Made) -> str:
        """Key of the cell, whatever number of images it is asked for."""
        return digest({"lower": lower.key, "sampling": self._sampling})

    def samples(self, lower: Made) -> tuple[Made, ...]:
        """One key per shard."""
        sampling = self._section("sampling", self._sampling)
        return tuple(self._made((lower,), sampling, shard=shard) for shard in self._shards)

    def measure(self, lower: Made, execution: Execution) -> Made | None:
        """Key of the timings; None where the latency of a simulation would say nothing."""
        if execution == "simulated":
            return None
        return self._made((lower,), self._section("timing", self._spec.timing), self._speed)

    def evaluate(
        self,
        metric: Component,
        samples: tuple[Made, ...],
        reference: tuple[Made, ...] | None,
        measure: Made | None,
    ) -> Made:
        """Key of a metric's values.

        Args:
            reference: samples of the full-precision cell, None when there is none.
            measure: of the timings, which only metrics that read them depend on.
        """
        provider = self._table.get("metric", metric.name)
        needs = [samples[0]]  # all shards are made of the same
        if provider.timed and measure is not None:
            needs.append(measure)
        return self._made(
            tuple(needs),
            self._component(provider, metric),
            **({"label": metric.label} if metric.label else {}),
            samples=digest([made.key for made in samples]),
            reference=None if reference is None else digest([made.key for made in reference]),
        )

    @cached_property
    def _everywhere(self) -> tuple[str, str]:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        host = {"version of Python": python, **self.code.facts(STAGES)}
        return (
            self._note("tfq-bench", host),
            self._note("this machine", arithmetic_facts(self._spec.device)),
        )

    @cached_property
    def _speed(self) -> str:
        return self._note("this machine", speed_facts(self._spec.device))

    def _component(self, provider: Provider, component: Component) -> str:
        known = provider.kind, component.name, canonical(dict(component.options))
        if known not in self._components:
            self._components[known] = self._note_component(provider, component)
        return self._components[known]

    def _note_component(self, provider: Provider, component: Component) -> str:
        # Fetched files that nothing pins count by their content, like files that options name.
        assets = asset_identities(self._table, provider, component)
        for asset in self._table.assets(provider, component.options):
            if asset.kind == "file" and asset.path is not None:
                self.code.watch(asset.path, sha256_of(asset.path))
        facts = {
            **self._running(provider),
            **_options(self.content(provider, component)),
            **{f"asset {name}": identity for name, identity in assets.items()},
        }
        return self._note(f"{provider.kind} '{provider.name}'", facts)

    def _running(self, provider: Provider) -> dict[str, str]:
        modules = tuple(part.factory.partition(":")[0] for part in provider.parts)
        found: dict[str, str] = {}
        for part in provider.parts:
            distribution, _, version = self._table.distribution_of(part).partition("==")
            # The digest behind an editable version covers more than what runs here.
            found[f"version of {distribution}"] = version.partition("+code.")[0]
            found |= self.code.facts(modules, distribution=distribution)
        return found

    def _section(self, name: str, values: Mapping[str, Any]) -> str:
        return self._note("suite", {f"{name}.{key}": value for key, value in values.items()})

    def _note(self, what: str, facts: Mapping[str, Any]) -> str:
        name = digest({"what": what, "facts": facts}, 12)
        self.ingredients[name] = {"what": what, **facts}
        return name

    def _made(self, needs: tuple[Made, ...], *ingredients: str, **values: Any) -> Made:
        key = digest({"needs": [made.key for made in needs], "of": ingredients, **values})
        before = (name for made in needs for name in made.of)
        return Made(key=key, of=tuple(dict.fromkeys((*before, *ingredients))))


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {f"option {name}": value for name, value in options.items()}
