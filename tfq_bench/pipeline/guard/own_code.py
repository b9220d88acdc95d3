"""Which attributes of an object its own methods set once it is made: counts of calls, caches.

Such an attribute changes while the object is used as it is meant to be. Any other can only have
been changed from outside.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import cache, cached_property
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from torch import nn

__all__ = ["OwnState", "own_state"]

_MAKERS = ("__init__", "__new__", "__post_init__", "__setstate__")
_BASES = (object, nn.Module)
"""Their methods, such as `train` and `register_buffer`, are called by whoever changes a network."""


class OwnState(NamedTuple):
    """Names of attributes by what a class's own methods do with them.

    Args:
        sets: assigned or deleted outside the constructor.
        fills: read by a method that stores into items, as a cache in a dictionary is.
        lazy: `cached_property`.
    """

    sets: frozenset[str]
    fills: frozenset[str]
    lazy: frozenset[str]


@cache
def own_state(kind: type) -> OwnState:
    """What the methods of `kind` and of what it inherits from do; read from their bytecode."""
    sets: set[str] = set()
    fills: set[str] = set()
    lazy: set[str] = set()
    for base in kind.__mro__:
        if base in _BASES:
            continue
        for name, value in vars(base).items():
            if isinstance(value, cached_property):
                lazy.add(name)
            if name not in _MAKERS:
                for code in _codes(value):
                    stored, filled = _stores(code)
                    sets |= stored
                    fills |= filled
    return OwnState(frozenset(sets), frozenset(fills), frozenset(lazy))


def _codes(value: Any) -> Iterator[CodeType]:
    """The bytecode of a method, whatever wraps it, and of functions inside it."""
    if isinstance(value, property):
        for one in (value.fget, value.fset, value.fdel):
            yield from _codes(one)
        return
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    elif isinstance(value, cached_property):
        value = value.func
    while isinstance(value, FunctionType):
        yield from _nested(value.__code__)
        value = getattr(value, "__wrapped__", None)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _nested(one)


def _stores(code: CodeType) -> tuple[set[str], set[str]]:
    sets: set[str] = set()
    reads: set[str] = set()
    fills = False
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            sets.add(str(step.argval))
        elif step.opname == "LOAD_ATTR":
            reads.add(str(step.argval))
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            fills = True
    return sets, reads if fills else set()
