"""What a plugin offers: frozen descriptions that cost nothing to import.

A provider names a factory as text (``"package.module:Class"``), so that listing plugins and
planning a suite import neither torch nor the plugin's own code.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tfq_bench.errors import BrokenPlugin, SuiteError, nearest
from tfq_bench.foreign.text import printable

__all__ = [
    "API",
    "BackendProvider",
    "Direction",
    "Execution",
    "ExecutorProvider",
    "GivenValue",
    "MetricProvider",
    "ModelProvider",
    "Option",
    "OptionValue",
    "Provider",
    "QuantizerProvider",
    "RendererProvider",
    "parse_options",
    "quoted",
]

API = 1
"""Version of the plugin API; a provider states the one it was written for."""

GivenValue = int | float | bool | str
OptionValue = GivenValue | None
"""None only of an option that is unset and has no other default."""

Direction = Literal["lower", "higher", "none"]
Execution = Literal["full-precision", "simulated", "lowered"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "path": str,
    "source": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One typed option of a provider, as it may stand in a suite.

    Args:
        name: key in the suite, ``snake_case``.
        kind: type of the value; `path` is a string that is resolved against the suite's folder,
            `source` one that is a path when there is such a folder or file, and otherwise a name,
            such as a hub id. Results go by what lies there, never by where it lies: of a `path` the
            host reads it, of a model's `source` the model's digest stands for it.
        default: value when the suite does not name it; None leaves it unset, and what then holds is
            the factory's matter (`help` says it). A suite cannot give None.
        help: one sentence for ``--help`` and the documentation.
        choices: allowed values, empty for any.
        minimum, maximum: inclusive range of a number.
        in_definition: of a metric's option: its numbers do not depend on it, or the parameters of
            their definitions say what it changes, such as a file by its digest. Any other that
            differs from its default is part of what the numbers mean (`MeasuredBy`).
    """

    name: str
    kind: Literal["int", "float", "bool", "str", "path", "source"]
    default: OptionValue
    help: str
    choices: tuple[GivenValue, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    in_definition: bool = False

    def parse(self, value: object, where: str) -> GivenValue:
        """`value` checked against this option's type, choices and range.

        Raises:
            SuiteError: says what was expected, what was found, and `where`.
        """
        wanted = _KINDS[self.kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind != "bool"):
            raise SuiteError(
                f"{where}: option '{self.name}' must be of type {self.kind}, "
                f"found {quoted(value)}.",
                key=self.name,
                expected=self.kind,
                found=value,
            )
        assert isinstance(value, int | float | bool | str)
        if self.choices and value not in self.choices:
            listing = ", ".join(map(repr, self.choices))
            raise SuiteError(
                f"{where}: option '{self.name}' must be one of {listing}, found {quoted(value)}.",
                key=self.name,
                expected=listing,
                found=value,
            )
        if self.kind == "float":
            number = _finite(value)  # 1 and 1.0 are one value, and have one key
            if number is None:
                raise SuiteError(
                    f"{where}: option '{self.name}' must be a finite number, "
                    f"found {quoted(value)}.",
                    key=self.name,
                    expected="a finite number",
                    found=value,
                )
            value = number
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = self.minimum, self.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                raise SuiteError(
                    f"{where}: option '{self.name}' must {_range(low, high)}, "
                    f"found {quoted(value)}.",
                    key=self.name,
                    expected=_range(low, high),
                    found=value,
                )
        return value


def quoted(value: object) -> str:
    """A value of a suite as messages show it, in one short line."""
    if isinstance(value, list | dict) and len(value) > 20:
        return f"{len(value)} values"
    try:
        return printable(repr(value), 120)
    except ValueError:  # a whole number of more digits than Python prints
        return "a whole number of thousands of digits"


def _finite(value: float | str) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # TOML has whole numbers of any length
        return None
    return number if math.isfinite(number) else None


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"be at least {low}"
    return f"be at most {high}" if low is None else f"lie in [{low}, {high}]"


def parse_options(
    options: tuple[Option, ...],
    given: dict[str, object],
    where: str,
    *,
    also: tuple[str, ...] = (),
) -> dict[str, OptionValue]:
    """Every option of a provider with its given or default value, None if unset, sorted by name.

    Args:
        also: other keys that may stand at the same place, for the message about an unknown one.

    Raises:
        SuiteError: for an unknown name (with the nearest known ones) or a value out of range.
    """
    known = {option.name: option for option in options}
    for name in given:
        if name not in known:
            names = (*known, *also)
            hint = nearest(name[:80], names) if names else "it has none."
            raise SuiteError(f"{where}: unknown option '{printable(name, 80)}'; {hint}", key=name)
    return {
        name: option.parse(given.get(name, option.default), where)
        if name in given or option.default is not None
        else None
        for name, option in sorted(known.items())
    }


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
    """

    kind: ClassVar[str] = "quantizer"

    wbits: tuple[int, ...] = (8,)
    abits: tuple[int, ...] = (8,)
    policies: tuple[str, ...] = ("uniform",)

    def __post_init__(self) -> None:
        Provider.__post_init__(self)
        _refuse_empty(self, "wbits", "abits", "policies")


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
            nothing; timings run alone and hold up all else.
    """

    kind: ClassVar[str] = "metric"

    timed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorProvider(Provider):
    """A way to place tasks on slots. The factory is called with `run: Path` and the options.

    `run` is the run folder, with plan and suite written. An option `slots` is what
    `tfq-bench run --slots` sets.
    """

    kind: ClassVar[str] = "executor"


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererProvider(Provider):
    """A report format. The factory is called with the options.

    Args:
        suffix: file ending of what it writes, with the dot.
    """

    kind: ClassVar[str] = "renderer"

    suffix: str = field(default=".html")
