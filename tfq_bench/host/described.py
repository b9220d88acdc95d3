"""Providers as plain data and back: what crosses from the child process and what is kept.

A provider that a plugin made is never used itself. It may be of a subclass with properties that
raise, or have been changed after it was made; every field is read once, held against its
annotation and copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from tfq_bench.errors import BrokenPlugin, SuiteError
from tfq_bench.foreign.text import printable
from tfq_bench.host.hookspecs import REGISTRATIONS
from tfq_bench.providers import Provider
from tfq_bench.types import Option

__all__ = ["RESERVED", "copied", "from_data", "option_fault", "shown", "to_data"]

MAX_TEXT = 500
MAX_ITEMS = 1000
MAX_NUMBER = 1 << 63

RESERVED: dict[str, tuple[str, ...]] = {
    "quantizer": ("name", "wbits", "abits", "policy", "scheme", "base"),
    "backend": ("name", "optional", "standby"),
    "executor": ("run",),
    "model": ("name",),
    "metric": ("name",),
}
"""Keys and arguments that the host uses itself, so that no option can be called so."""

_OPTION_KINDS: tuple[str, ...] = get_args(get_type_hints(Option)["kind"])
_OF_KIND: dict[str, type[Provider]] = {wanted.kind: wanted for wanted in REGISTRATIONS.values()}


def copied(provider: Provider, wanted: type[Provider]) -> Provider:
    """A provider of exactly the type `wanted` with checked copies of the fields of `provider`.

    Raises:
        BrokenPlugin: a field is not what its annotation says, or the provider refuses it.
        Exception: whatever reading a field raises.
    """
    found: dict[str, Any] = {}
    for one in fields(wanted):
        value = getattr(provider, one.name)
        try:
            found[one.name] = _READERS[str(one.type)](value)
        except _Wrong as wrong:
            name = printable(found.get("name", "?"), 80)
            raise BrokenPlugin(
                f"{wanted.kind} '{name}': {one.name} should be {wrong}, found {shown(value)}.",
                component=f"{wanted.kind} '{name}'",
                key=one.name,
                expected=str(wrong),
                found=shown(value),
            ) from None
    return wanted(**found)


def to_data(provider: Provider) -> dict[str, Any]:
    """A copied provider as JSON-able data."""
    data = {one.name: getattr(provider, one.name) for one in fields(provider)}
    options = [{f.name: getattr(o, f.name) for f in fields(o)} for o in provider.options]
    return {**data, "options": options, "kind": provider.kind}


def from_data(data: Mapping[str, Any]) -> Provider:
    """The provider that `to_data` wrote.

    Raises:
        BrokenPlugin, KeyError, TypeError, AttributeError: it is not what `to_data` writes.
    """
    fields_of = dict(data)
    wanted = _OF_KIND[fields_of.pop("kind")]
    fields_of["options"] = tuple(Option(**option) for option in fields_of["options"])
    return copied(_Fields(fields_of), wanted)  # type: ignore[arg-type]


class _Fields:
    """Attributes of a dictionary."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)


def option_fault(provider: Provider) -> str:
    """What is wrong with the options of a copied provider, empty when nothing is."""
    seen: set[str] = set()
    for option in provider.options:
        if option.name in seen:
            return f"it has two options called '{option.name}'."
        seen.add(option.name)
        if option.name in RESERVED.get(provider.kind, ()):
            return f"no option of a {provider.kind} can be called '{option.name}'; rename it."
        if option.default is None:
            continue
        try:
            option.parse(option.default, "the default is invalid")
        except SuiteError as error:
            return str(error)
    return ""


class _Wrong(Exception):
    """What a value should have been."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _Wrong(f"text of at most {MAX_TEXT} characters")
    return printable(str.__str__(value), MAX_TEXT) if value else ""


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("True or False")
    return value


def _whole(value: Any) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not -MAX_NUMBER < value < MAX_NUMBER
    ):
        raise _Wrong("a whole number")
    return int(value)


def _number(value: Any) -> int | float:
    if isinstance(value, int):
        return _whole(value)
    if not isinstance(value, float) or not math.isfinite(value):
        raise _Wrong("a finite number")
    return float(value)


def _bound(value: Any) -> int | float | None:
    return None if value is None else _number(value)


def _execution(value: Any) -> str:
    if value not in ("full-precision", "simulated", "lowered"):
        raise _Wrong("'simulated' or 'lowered'")
    return str(value)


def _value(value: Any) -> int | float | bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise _Wrong(f"text of at most {MAX_TEXT} characters")
        return str.__str__(value)
    return _number(value)


def _several(read: Callable[[Any], Any], what: str) -> Callable[[Any], tuple[Any, ...]]:
    def several(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list) or len(value) > MAX_ITEMS:
            raise _Wrong(f"a tuple of at most {MAX_ITEMS} {what}")
        try:
            return tuple(read(one) for one in value)
        except _Wrong as wrong:
            raise _Wrong(f"a tuple of {what}, each {wrong}") from None

    return several


def _option(value: Any) -> Option:
    if not isinstance(value, Option):
        raise _Wrong("an Option object")
    name = value.name
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 100:
        raise _Wrong("with a name that Python takes for a keyword argument")
    if value.kind not in _OPTION_KINDS:
        raise _Wrong(f"of kind {' or '.join(_OPTION_KINDS)} ('{name}' is not)")
    try:
        return Option(
            name=str.__str__(name),
            kind=value.kind,
            default=None if value.default is None else _value(value.default),
            help=printable(_text(value.help), MAX_TEXT),
            choices=_several(_value, "values")(value.choices),
            minimum=_bound(value.minimum),
            maximum=_bound(value.maximum),
            in_definition=_flag(value.in_definition),
        )
    except _Wrong as wrong:
        raise _Wrong(f"complete ('{name}' needs {wrong} somewhere)") from None


_READERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _whole,
    "float": _number,
    "bool": _flag,
    "Execution": _execution,
    "tuple[int, ...]": _several(_whole, "whole numbers"),
    "tuple[str, ...]": _several(_text, "texts"),
    "tuple[Option, ...]": _several(_option, "Option objects"),
}
"""How to read a field, by its annotation."""


def shown(value: object) -> str:
    """`repr` of what a plugin gave, in one short line."""
    try:
        return printable(repr(value), 80)
    except BaseException:  # its `__repr__` is the plugin's
        return f"a {type(value).__name__}"
