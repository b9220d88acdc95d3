"""What a plugin offers: frozen descriptions that cost nothing to import.

A provider names a factory as text (``"package.module:Class"``), so that listing plugins and
planning a suite import neither torch nor the plugin's own code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

import pluggy

from tfq_bench.errors import BrokenPlugin
from tfq_bench.types.cells import Execution
from tfq_bench.types.options import Option

__all__ = [
    "API",
    "BackendProvider",
    "ExecutorProvider",
    "MetricProvider",
    "ModelProvider",
    "Provider",
    "QuantizerProvider",
    "RendererProvider",
    "hookimpl",
]

hookimpl = pluggy.HookimplMarker("tfq_bench")
"""Marks a function of a plugin's entry-point module as a hook implementation."""

API = 1
"""Version of the plugin API; a provider states the one it was written for."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What every provider states.

    Args:
        name: lower-case letters, digits and hyphens; unique within its kind.
        summary: one line for listings.
        factory: ``"package.module:Class"``, imported when the provider is first used.
        options: typed options a suite may set.
        api: the plugin API version it was written for.
        assets: ``"package.module:function"`` that imports no torch. It is called with the parsed
            options, a mapping of names to values, and returns a tuple of `Asset`: the files that do
            not come with the package, found or not. Empty when there are none.

    Raises:
        BrokenPlugin: when `name`, `factory` or `assets` is malformed.
    """

    kind: ClassVar[str] = "provider"

    @property
    def protocol(self) -> str:
        """Which of `protocols` its factory's objects implement; its kind, but for contestants."""
        return self.kind

    @property
    def parts(self) -> tuple[Provider, ...]:
        """Itself; of what a suite writes as `a+b`, see `wraps`, the providers of both."""
        return (self,)

    name: str
    summary: str
    factory: str
    options: tuple[Option, ...] = ()
    api: int = API
    assets: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BrokenPlugin(
                f"a {self.kind}'s name must match {_NAME.pattern}, found {self.name!r}."
            )
        if not _FACTORY.fullmatch(self.factory):
            raise BrokenPlugin(
                f"{self.kind} '{self.name}': factory must look like 'package.module:Class', "
                f"found {self.factory!r}."
            )
        if self.assets and not _FACTORY.fullmatch(self.assets):
            raise BrokenPlugin(
                f"{self.kind} '{self.name}': assets must look like 'package.module:function', "
                f"found {self.assets!r}."
            )


def _refuse_empty(provider: Provider, *names: str) -> None:
    for name in names:
        if not getattr(provider, name):
            raise BrokenPlugin(
                f"{provider.kind} '{provider.name}': {name} is empty; its first is the default."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProvider(Provider):
    """A diffusion model. The factory is called with the options and returns a `Model`.

    Args:
        samplers: names that the model's `sampler` accepts, the first is the default.
        gmac: multiply-accumulates of one network call for one image, in 1e9; for estimates.
    """

    kind: ClassVar[str] = "model"

    samplers: tuple[str, ...] = ("ddim",)
    gmac: float = 1.0

    def __post_init__(self) -> None:
        Provider.__post_init__(self)  # slots: `super()` would name the class without them
        _refuse_empty(self, "samplers")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerProvider(Provider):
    """A quantization method. The factory is called with `scheme` and the options.

    Args:
        wbits: weight bit widths it can produce. abits: activation bit widths (32 = float).
        policies: names of its layer policies, the first is the default.
        external: it is a tool that quantizes and executes by itself, a `Contestant`. Its cells
            have no backend. It decides which layers it quantizes, so its policies are called `own`,
            or `own-` and something.
        wraps: it changes the state that another quantizer makes. A suite writes it in front of
            that one's name (`ptqd+rtn`) and the options of both below. Its factory is called with
            `base`, the other `Quantizer`, in addition; bits and policies are those of the base.

    Raises:
        BrokenPlugin: a tuple is empty, an external one names a policy of others, or it is both
            external and `wraps`.
    """

    kind: ClassVar[str] = "quantizer"

    wbits: tuple[int, ...] = (8,)
    abits: tuple[int, ...] = (8,)
    policies: tuple[str, ...] = ("uniform",)
    external: bool = False
    wraps: bool = False

    def __post_init__(self) -> None:
        Provider.__post_init__(self)
        _refuse_empty(self, "wbits", "abits", "policies")
        if self.external and self.wraps:
            raise BrokenPlugin(
                f"quantizer '{self.name}' is external, and makes no state of another's; expected "
                "external or wraps, found both."
            )
        others = [name for name in self.policies if not re.fullmatch(r"own(-.+)?", name)]
        if self.external and others:
            raise BrokenPlugin(
                f"quantizer '{self.name}' is external, so that its policies are its own: expected "
                f"'own' or 'own-...', found '{others[0]}'."
            )

    @property
    def protocol(self) -> str:
        """`contestant` for a tool that executes by itself, else `quantizer`."""
        return "contestant" if self.external else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendProvider(Provider):
    """A way to execute a quantized state. The factory is called with the options.

    Args:
        execution: `simulated` (float arithmetic on dequantized integers) or `lowered` (kernels).
        wbits, abits: bit widths for which it has kernels; others are skipped in the plan.
        devices: device types it runs on (`cpu`, `cuda`).
    """

    kind: ClassVar[str] = "backend"

    execution: Execution = "lowered"
    wbits: tuple[int, ...] = (8,)
    abits: tuple[int, ...] = (8,)
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricProvider(Provider):
    """A family of numbers. The factory is called with the options and returns a `Metric`.

    Args:
        timed: the metric reads the facts of the stage `measure`. Suites without such a metric time
            nothing; a timing has its device to itself and holds up all else there.
    """

    kind: ClassVar[str] = "metric"

    timed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorProvider(Provider):
    """A way to place tasks on slots. The factory is called with `run: Path` and the options.

    `run` is the run folder, with plan and suite written. An option `slots` is what
    `tfq-bench run --slots` sets.

    Args:
        gpus: it places tasks on the GPUs of this host, as `tfq-bench run --devices` says. Its
            factory is called with `devices` too: a tuple of values of `CUDA_VISIBLE_DEVICES`, each
            of which shows one GPU. A task is to see one of them, and beside an exclusive one
            nothing else runs on that GPU. Empty when tasks see what their parent sees.

    Raises:
        BrokenPlugin: an option is called `devices`, and `gpus` is True.
    """

    kind: ClassVar[str] = "executor"

    gpus: bool = False

    def __post_init__(self) -> None:
        Provider.__post_init__(self)
        if self.gpus and any(option.name == "devices" for option in self.options):
            raise BrokenPlugin(
                f"executor '{self.name}': with gpus = True the host passes 'devices'; rename the "
                "option."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererProvider(Provider):
    """A report format. The factory is called with the options.

    Args:
        suffix: file ending of what it writes, with the dot.
        renders: `runs` for a `Renderer`, which `tfq-bench report` asks; `history` for a
            `HistoryRenderer`, which `tfq-bench history plot` asks.

    Raises:
        BrokenPlugin: `renders` is something else.
    """

    kind: ClassVar[str] = "renderer"

    suffix: str = field(default=".html")
    renders: str = "runs"

    def __post_init__(self) -> None:
        Provider.__post_init__(self)
        if self.renders not in ("runs", "history"):
            raise BrokenPlugin(
                f"renderer '{self.name}': renders must be 'runs' or 'history', found "
                f"{self.renders!r}."
            )
