"""Dataclasses as JSON: how they are written, checked and read, from their annotations alone.

A field is declared once, in its class: the annotation says what may stand in it, `Args:` of the
docstring what it is for. Fields are written in the order of the class. Marks in an annotation:

    Annotated[str, "key"]        text that is a key; every narrower shape is in `MARKED`
    Annotated[X, "inline"]       the fields of the dataclass X stand among those of this one
    Annotated[X, "later"]        files of earlier versions lack it; then it has its default

Floats that JSON cannot say stand as the strings `NaN`, `Infinity` and `-Infinity`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from tfq_bench.store import shapes
from tfq_bench.store.shapes import Shape

__all__ = ["MARKED", "Struct", "json_number"]

T = TypeVar("T")

MARKED: Mapping[str, Shape] = {
    "key": shapes.KEY,
    "count": shapes.COUNT,
    "amount": shapes.AMOUNT,
    "level": shapes.LEVEL,
    "axes": shapes.AXES,
}
"""Shapes narrower than a type, by the mark that asks for them."""


class Struct(Generic[T]):
    """A dataclass as a JSON object.

    Args:
        kind: its fields are plain types, literals, dataclasses, tuples and mappings of these.

    Attributes:
        required, later: shapes by field; those of `later` may be missing.
        shape: the whole object, with no further field.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self.required: dict[str, Shape] = {}
        self.later: dict[str, Shape] = {}
        self._inline: dict[str, Struct[Any]] = {}
        self._forms: dict[str, _Form] = {}
        hints, words = get_type_hints(kind, include_extras=True), _field_docs(kind)
        for name in (field.name for field in fields_of(kind)):  # type: ignore[arg-type]
            hint, marks = hints[name], getattr(hints[name], "__metadata__", ())
            if "inline" in marks:
                inner = self._inline[name] = Struct(hint.__origin__)
                self.required |= inner.required
                self.later |= inner.later
                continue
            form = _form(hint.__origin__ if "later" in marks else hint)
            shape = form.shape.described(words[name]) if name in words else form.shape
            (self.later if "later" in marks else self.required)[name] = shape
            self._forms[name] = form
        self.shape = shapes.fields(self.required, self.later)

    def to_json(self, value: T) -> dict[str, Any]:
        """The fields of `value` as strict JSON data; nothing is checked."""
        data: dict[str, Any] = {}
        for field in fields_of(self.kind):  # type: ignore[arg-type]
            item = getattr(value, field.name)
            if field.name in self._inline:
                data |= self._inline[field.name].to_json(item)
            else:
                data[field.name] = self._forms[field.name].write(item)
        return data

    def from_json(self, data: Mapping[str, Any]) -> T:
        """The inverse, of data that fit; fields of others in `data` are passed over."""
        inline = {name: inner.from_json(data) for name, inner in self._inline.items()}
        own = {name: f.read(data[name]) for name, f in self._forms.items() if name in data}
        return self.kind(**inline, **own)


def json_number(value: float) -> float | str:
    """A float that strict JSON can say: `NaN`, `Infinity` and `-Infinity` become strings."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _same(value: Any) -> Any:
    return value


class _Form(NamedTuple):
    """How values of one type stand in JSON."""

    shape: Shape
    write: Callable[[Any], Any] = _same
    read: Callable[[Any], Any] = _same


_PLAIN = {
    str: _Form(shapes.TEXT),
    bool: _Form(shapes.FLAG),
    int: _Form(shapes.COUNT, int),
    float: _Form(shapes.NUMBER, json_number, float),
}


def _form(hint: Any) -> _Form:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        struct = Struct(hint)
        return _Form(struct.shape, struct.to_json, struct.from_json)
    origin, given = get_origin(hint), get_args(hint)
    if origin is Annotated:
        (mark,) = hint.__metadata__
        return _form(given[0])._replace(shape=MARKED[mark])
    if origin is Literal:
        return _Form(shapes.one_of(*given))
    if origin is tuple:
        return _sequence(given[0])
    if origin is Mapping:
        return _mapping(given[1])
    if origin in (Union, UnionType) and given[1:] == (NoneType,):
        return _optional(given[0])
    return _Form(shapes.ANYTHING)


def _sequence(hint: Any) -> _Form:
    item = _form(hint)
    return _Form(
        shapes.NUMBERS if item.shape is shapes.NUMBER else shapes.many(item.shape),
        lambda values: [item.write(value) for value in values],
        lambda values: tuple(map(item.read, values)),
    )


def _mapping(hint: Any) -> _Form:
    item = _form(hint)
    return _Form(
        shapes.mapping(item.shape),
        lambda values: {name: item.write(value) for name, value in values.items()},
        lambda values: {name: item.read(value) for name, value in values.items()},
    )


def _optional(hint: Any) -> _Form:
    item = _form(hint)
    return _Form(
        shapes.optional(item.shape),
        lambda value: None if value is None else item.write(value),
        lambda value: None if value is None else item.read(value),
    )


def _field_docs(kind: type) -> dict[str, str]:
    """What `Args:` of its docstring says of each field, as one line."""
    _, _, args = inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", args, re.MULTILINE)
    return {name: text[0].upper() + " ".join(text[1:].split()) for name, text in found}
