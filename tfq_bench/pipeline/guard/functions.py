"""Functions that every result is computed with, to see whether foreign code has replaced some.

Speed-ups are often installed by assignment (`torch.nn.functional.scaled_dot_product_attention =
mine`). In one process such a function computes everybody's results after it, under keys that know
nothing of it. So the functions of torch, of this package and of the model's packages are looked at
after each piece of foreign code, and put back where they are others.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from tfq_bench.errors import BrokenPlugin

__all__ = ["Functions", "unreplaced"]

HOST = "tfq_bench"
_MODULES = ("torch", "torch.nn.functional", "torch.linalg", "torch.special", "torch.fft")
_OTHERS: tuple[ModuleType, ...] = (math, json, hashlib, np, np.linalg)
_CLASSES: tuple[type, ...] = (torch.Tensor, torch.nn.Parameter, torch.autograd.Function)
_NOT_WHOLE = {"torch", *sys.stdlib_module_names}
"""Packages of which only some modules are looked at, or none."""
_CONSTANTS = (float, str, tuple, torch.dtype)
"""What a class holds beside methods; whole numbers count things."""
_MOVES = ("torch.Storage",)
"""What torch itself sets, here with its default dtype."""

Owner = ModuleType | type


class Functions:
    """Functions, classes and methods at one moment.

    Args:
        packages: whose modules and classes are watched beside torch's, numpy's and our own.
    """

    def __init__(self, packages: Iterable[str] = ()) -> None:
        self._held: dict[int, tuple[Owner, dict[str, Any]]] = {}
        self._entries: dict[int, dict[str, Any]] = {}
        owners: list[Owner] = [*_OTHERS, *_CLASSES, *(sys.modules[name] for name in _MODULES)]
        owners += _classes("torch.nn.modules")
        for owner in owners:
            self._hold(owner)
        self.add((HOST, *packages))

    def add(self, packages: Iterable[str]) -> None:
        """Watches the modules of these packages that are imported, and the classes in them."""
        for package in set(packages) - _NOT_WHOLE:
            owners: list[Owner] = [*_modules(package), *_classes(package)]
            for owner in owners:
                if id(owner) not in self._held:
                    self._hold(owner)

    def add_classes(self, classes: Iterable[type]) -> None:
        """Watches these classes, wherever they were defined, and the packages they come from."""
        new = [kind for kind in classes if id(kind) not in self._held and kind is not object]
        self.add(kind.__module__.partition(".")[0] for kind in new)
        for kind in new:
            if id(kind) not in self._held:
                self._hold(kind)

    def restore(self) -> list[str]:
        """Names of those that were replaced or hidden, with whose code it was; all are put back.

        A library that wraps a function of its own, as torch's compiler does when it is imported or
        used, is left alone.
        """
        changed = []
        for owner, before in self._held.values():
            entries = dict(vars(owner))
            if _identical(entries, self._entries[id(owner)]):
                continue
            now = _functions(entries, owner)
            for name in before.keys() | now.keys():
                was, found = before.get(name), now.get(name)
                if found is was or (was is None and not _hides(owner, name)):
                    continue
                if isinstance(was, _CONSTANTS) and type(found) is type(was) and found == was:
                    continue
                if was is not None and _own_wrapper(owner, found, before):
                    before[name] = found
                    continue
                path = f"{_path(owner)}.{name}"
                if path not in _MOVES:
                    changed.append(f"{path}{_by(found)}")
                if was is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, was)
            self._entries[id(owner)] = dict(vars(owner))
        return sorted(changed)

    def _hold(self, owner: Owner) -> None:
        entries = self._entries[id(owner)] = dict(vars(owner))
        self._held[id(owner)] = owner, _functions(entries, owner)


@contextlib.contextmanager
def unreplaced() -> Iterator[None]:
    """For a block that imports plugins: functions are afterwards what they were.

    Raises:
        BrokenPlugin: they are not; names them and the package whose code took their places.
    """
    functions = Functions()
    try:
        yield
    except BaseException:
        functions.restore()
        raise
    if replaced := functions.restore():
        raise BrokenPlugin(
            f"importing what the suite uses replaced functions that every result is computed with "
            f"({', '.join(replaced[:3])}{', ...' if len(replaced) > 3 else ''}). Leave that plugin "
            "out (--block NAME), or let it replace them in its own layers only."
        )


def _modules(package: str) -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if (name == package or name.startswith(f"{package}.")) and type(module) is ModuleType:
            yield module


def _classes(package: str) -> Iterator[type]:
    for module in _modules(package):
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                yield value


def _identical(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the same names hold the very same objects in the same order."""
    return (
        len(one) == len(other)
        and all(map(operator.eq, one, other))
        and all(map(operator.is_, one.values(), other.values()))
    )


def _functions(entries: Mapping[str, Any], owner: Owner) -> dict[str, Any]:
    return {
        name: value
        for name, value in entries.items()
        if callable(value)
        or isinstance(value, property | classmethod | staticmethod | functools.cached_property)
        or (isinstance(owner, type) and isinstance(value, _CONSTANTS) and name[:2] != "__")
    }


def _hides(owner: Owner, name: str) -> bool:
    """Whether a new name of a class takes the place of an inherited one."""
    return isinstance(owner, type) and any(name in vars(base) for base in owner.__mro__[1:])


def _own_wrapper(owner: Owner, found: Any, before: Mapping[str, Any]) -> bool:
    """Whether the owner's package wrote the function, and not as one of the owner's others."""
    others = any(found is one for one in before.values())
    return isinstance(found, FunctionType) and _author(found) == _package(owner) and not others


def _author(found: Any) -> str:
    """The top package of a function's code; decorators that copy names do not change it."""
    code = getattr(found, "__globals__", None)
    name = code.get("__name__") if code is not None else getattr(found, "__module__", None)
    return str(name or "").partition(".")[0]


def _package(owner: Owner) -> str:
    name = owner.__module__ if isinstance(owner, type) else owner.__name__
    return name.partition(".")[0]


def _path(owner: Owner) -> str:
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}"
    return owner.__name__


def _by(found: Any) -> str:
    author = _author(found)
    return f" by {author}" if author else ""
