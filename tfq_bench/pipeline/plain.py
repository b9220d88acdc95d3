"""What foreign code gives, as plain Python numbers, text and JSON; else MetricError.

`where` begins the sentence that says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sized
from numbers import Real
from typing import Any

from tfq_bench.errors import MetricError
from tfq_bench.foreign.text import printable

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_NAME",
    "plain_json",
    "plain_number",
    "plain_numbers",
    "plain_text",
    "shown",
]

MAX_DEPTH = 16
"""Nesting of a definition's parameters; a whole record must stay far below what is parsed."""
MAX_INTEGER = 1 << 63
MAX_NAME = 100


def plain_numbers(given: object, where: str) -> tuple[float, ...]:
    """The numbers of a tuple, list or array."""
    # Something with a length: an endless generator would never be read to its end.
    if (
        isinstance(given, str | bytes | Mapping)
        or not isinstance(given, Iterable)
        or not isinstance(given, Sized)
    ):
        raise MetricError(f"{where} must be a tuple of numbers, found {shown(given)}.")
    return tuple(plain_number(item, f"{where}, number {i}") for i, item in enumerate(given))


def plain_number(given: object, where: str) -> float:
    """A finite number."""
    if isinstance(given, bool) or not isinstance(given, Real):
        raise MetricError(f"{where} must be a number, found {shown(given)}.")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MetricError(
            f"{where} is {number}, which is not a finite number; it cannot be computed from these "
            "images."
        )
    return number


def plain_text(given: object, where: str, limit: int) -> str:
    """One printable line of at most `limit` characters."""
    if not isinstance(given, str):
        raise MetricError(f"{where} must be text, found {shown(given)}.")
    # A subclass of str may say anything when it is asked for its text later.
    text = str.__str__(given)
    if not text.isprintable() or text != printable(text, limit):
        raise MetricError(
            f"{where} must be one printable line of at most {limit} characters, found "
            f"{printable(text, MAX_NAME)!r}."
        )
    return text


def plain_json(given: object, where: str, depth: int) -> Any:
    """`given` as JSON knows it; tuples become lists."""
    if depth == 0:
        raise MetricError(f"{where}: nested more than {MAX_DEPTH} levels deep.")
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, str):
        return _encodable(given, where)
    if isinstance(given, int):
        if abs(given) >= MAX_INTEGER:
            raise MetricError(f"{where} must be whole numbers of at most 63 bits.")
        return int(given)
    if isinstance(given, float):
        if not math.isfinite(given):
            raise MetricError(f"{where} must be finite numbers, found {given}.")
        return float(given)
    if isinstance(given, Mapping):
        for key in given:
            if not isinstance(key, str):
                raise MetricError(f"{where}: keys must be text, found {shown(key)}.")
        return {
            _encodable(key, where): plain_json(item, f"{where}, {printable(key, 50)}", depth - 1)
            for key, item in given.items()
        }
    if isinstance(given, list | tuple):
        return [plain_json(item, where, depth - 1) for item in given]
    raise MetricError(
        f"{where} must be what JSON can say (text, numbers, true, false, null, lists, mappings), "
        f"found {shown(given)}."
    )


def _encodable(given: str, where: str) -> str:
    text = str.__str__(given)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MetricError(
            f"{where} must be text that UTF-8 can say, found {printable(text, MAX_NAME)!r}."
        ) from None
    return text


def shown(given: object) -> str:
    """An object for a message; what its own `repr` does is not trusted."""
    try:
        text = repr(given)
    except Exception:  # foreign code
        text = "..."
    return f"{type(given).__name__} {printable(text, 80)}"
