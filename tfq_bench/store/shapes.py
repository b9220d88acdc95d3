"""What stored JSON must look like: said once a format, checked before anything of it is used.

A shape checks a value, and says the same as a JSON schema. `fields`, `many` and `mapping` make
shapes of shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tfq_bench.foreign.text import printable

__all__ = [
    "AMOUNT",
    "ANYTHING",
    "AXES",
    "CHECKSUM",
    "COUNT",
    "FINITE",
    "FLAG",
    "KEY",
    "LEVEL",
    "NUMBER",
    "NUMBERS",
    "TEXT",
    "WHOLE_TEXT",
    "Misfit",
    "Shape",
    "constant",
    "fields",
    "many",
    "mapping",
    "one_of",
    "optional",
]

MAX_COUNT = 10**15
"""More images, rounds or indices than there can be; tables hold 64-bit integers."""

_NAMED_FLOATS = ("NaN", "Infinity", "-Infinity")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_CHECKSUM = re.compile(r"[0-9a-f]{16}")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


class Misfit(ValueError):
    """What was expected, what was found, and where in the value; ready to stand behind a file."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value in JSON must be; called with the value and the place it stands at.

    Args:
        check: raises `Misfit` when the value is something else.
        schema: the same as a JSON schema.
    """

    check: Callable[[Any, str], None]
    schema: Mapping[str, Any]

    def __call__(self, value: Any, where: str) -> None:
        """Nothing when the value fits, else `Misfit`."""
        self.check(value, where)

    def described(self, words: str) -> Shape:
        """The same shape; the schema says in words what it is for."""
        return replace(self, schema={"description": words, **self.schema})


def _plain(words: str, holds: Callable[[Any], bool], **schema: Any) -> Shape:
    def check(value: Any, where: str) -> None:
        if not holds(value):
            raise Misfit(f"expected {words}{_at(where)}, found {printable(repr(value), 80)}")

    return Shape(check, schema)


def _is_number(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is int:
        return abs(value) < 2**1000  # what a float can hold
    return value in _NAMED_FLOATS if type(value) is str else False


TEXT = _plain("text", lambda value: type(value) is str, type="string")
KEY = _plain(
    "a key of letters, digits, '.', '_' and '-'",
    lambda value: type(value) is str and _KEY.fullmatch(value) is not None,
    type="string",
    pattern=f"^{_KEY.pattern}$",
)
"""What may be a part of a path."""
CHECKSUM = _plain(
    "16 hexadecimal digits",
    lambda value: type(value) is str and _CHECKSUM.fullmatch(value) is not None,
    type="string",
    pattern=f"^{_CHECKSUM.pattern}$",
)
WHOLE_TEXT = _plain(
    "a whole number as text",
    lambda value: type(value) is str and _WHOLE.fullmatch(value) is not None,
    type="string",
    pattern=f"^{_WHOLE.pattern}$",
)
FLAG = _plain("true or false", lambda value: type(value) is bool, type="boolean")
COUNT = _plain(
    "a whole number from 0 on",
    lambda value: type(value) is int and 0 <= value <= MAX_COUNT,
    type="integer",
    minimum=0,
    maximum=MAX_COUNT,
)
NUMBER = _plain("a number", _is_number, anyOf=[{"type": "number"}, {"enum": [*_NAMED_FLOATS]}])
FINITE = _plain(
    "a finite number",
    lambda value: type(value) in (int, float) and _is_number(value),
    type="number",
)
AMOUNT = _plain(
    "a finite number from 0 on",
    lambda value: type(value) in (int, float) and _is_number(value) and value >= 0,
    type="number",
    minimum=0,
)
LEVEL = _plain(
    "a number between 0 and 1",
    lambda value: type(value) is float and 0.5 < 0.5 + value / 2 < 1,
    type="number",
    exclusiveMinimum=0,
    exclusiveMaximum=1,
)
ANYTHING = Shape(lambda value, where: None, {})  # noqa: ARG005
"""Whatever JSON can say."""


def constant(value: int) -> Shape:
    """This whole number."""
    return _plain(f"{value}", lambda found: type(found) is int and found == value, const=value)


def one_of(*choices: Any) -> Shape:
    """One of these values."""
    words = " or ".join(map(repr, choices))
    return _plain(
        words, lambda value: type(value) is not bool and value in choices, enum=[*choices]
    )


def optional(shape: Shape) -> Shape:
    """Null, or what `shape` says."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            shape(value, where)

    return Shape(check, {"anyOf": [{"type": "null"}, shape.schema]})


def many(shape: Shape, *, length: int | None = None) -> Shape:
    """A list, of `length` items where that is given."""
    words = "a list" if length is None else f"a list of {length}"

    def check(value: Any, where: str) -> None:
        if type(value) is not list or length not in (None, len(value)):
            raise Misfit(f"expected {words}{_at(where)}, found {printable(repr(value), 80)}")
        for number, item in enumerate(value):
            shape(item, f"{where}[{number}]")

    size = {} if length is None else {"minItems": length, "maxItems": length}
    return Shape(check, {"type": "array", "items": shape.schema, **size})


def _numbers(value: Any, where: str) -> None:
    if type(value) is list and {*map(type, value)} <= {float} and all(map(math.isfinite, value)):
        return
    _MANY_NUMBERS(value, where)


_MANY_NUMBERS = many(NUMBER)
NUMBERS = replace(_MANY_NUMBERS, check=_numbers)
"""A list of numbers; long ones are the bulk of a file, so they are looked at as a whole."""


def mapping(shape: Shape, keys: Mapping[str, Shape] | None = None) -> Shape:
    """An object with any names; those in `keys` have shapes of their own when they are there."""
    special = keys or {}

    def check(value: Any, where: str) -> None:
        _object(value, where)
        for name, item in value.items():
            special.get(name, shape)(item, f"{where}.{name}")

    schema: dict[str, Any] = {"type": "object", "additionalProperties": shape.schema}
    if special:
        schema["properties"] = {name: item.schema for name, item in special.items()}
    return Shape(check, schema)


AXES = mapping(TEXT, {"wbits": WHOLE_TEXT, "abits": WHOLE_TEXT, "seed": WHOLE_TEXT})
"""What tells a cell from others: model, quantizer, bits and the rest, all as text."""


def fields(
    required: Mapping[str, Shape], others: Mapping[str, Shape] | None = None, *, loose: bool = False
) -> Shape:
    """An object with these fields, and with no more unless it is `loose`."""
    known = {**(others or {}), **required}
    names = set(known)

    def check(value: Any, where: str) -> None:
        _object(value, where)
        for name in required:
            if name not in value:
                raise Misfit(f"expected the field '{name}'{_at(where)}, found none")
        if not loose and not value.keys() <= names:
            odd = next(name for name in value if name not in names)
            raise Misfit(f"expected no field {printable(repr(odd), 80)}{_at(where)}, found it")
        for name, shape in known.items():
            if name in value:
                shape(value[name], f"{where}.{name}" if where else name)

    return Shape(
        check,
        {
            "type": "object",
            "additionalProperties": loose,
            "required": [*required],
            "properties": {name: shape.schema for name, shape in known.items()},
        },
    )


def _object(value: Any, where: str) -> None:
    if type(value) is not dict:
        raise Misfit(f"expected an object{_at(where)}, found {printable(repr(value), 80)}")


def _at(where: str) -> str:
    return f" at '{printable(where, 120)}'" if where else ""
