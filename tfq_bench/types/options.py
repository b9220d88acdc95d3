"""Typed options of a provider, and what a suite gives for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tfq_bench.errors import SuiteError, nearest
from tfq_bench.foreign.text import printable

__all__ = ["GivenValue", "Option", "OptionValue", "parse_options", "quoted"]

GivenValue = int | float | bool | str
OptionValue = GivenValue | None
"""None only of an option that is unset and has no other default."""

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
