"""All that hangs on some objects at one moment: attributes, items, tensors, hooks, functions.

Nothing is looked for by name. Every attribute of every object that can be reached is held, but for
the insides of Python's, NumPy's and torch's own objects, which are held as what they are.
"""

from __future__ import annotations

import enum
import hashlib
import sys
import types
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tfq_bench.pipeline.guard.own_code import OwnState, own_state
from tfq_bench.pipeline.guard.tensor_content import tensor_content

__all__ = ["Node", "Same", "Snapshot"]

_DEPTH = 8
_PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, enum.Enum, PurePath),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, np.generic, np.dtype),
)
_CODE = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodWrapperType, type),
    *(types.WrapperDescriptorType, types.ModuleType),
)
_LISTS = (list, tuple, deque)
_MAPPINGS = (dict, types.MappingProxyType)
_BARE = frozenset(vars(nn.Module())) - {"training"}
_HOOKS = tuple(sorted(name for name in _BARE if "_hooks" in name))
_CLOSED = frozenset(sys.stdlib_module_names) | {"torch", "numpy"}


class Same:
    """Equal to another of the same object only, which it keeps alive: ids are used again."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


@dataclass(slots=True)
class Node:
    """One object.

    Args:
        kind: its class, or what else tells it from others.
        held: attributes or items by name: a number or text itself, a tensor's content, a function
            as `Same`, for another object `Node.kind` of it.
        counted: names that may not be added, since they change what is computed: parameters,
            submodules, hooks, and attributes that hide a method or a constant of the class.
        own: names that the object itself counts or caches in.
        lazy: names that may come and go.
    """

    kind: Hashable
    held: dict[Hashable, Hashable]
    counted: frozenset[Hashable] = frozenset()
    own: frozenset[Hashable] = frozenset()
    lazy: frozenset[Hashable] = frozenset()


class Snapshot:
    """The objects that can be reached from some, by path.

    Args:
        roots: by name; what two of them reach is held under the first.
    """

    def __init__(self, roots: Mapping[str, object]) -> None:
        self.nodes: dict[str, Node] = {}
        self.classes: set[type] = set()
        self._seen: set[int] = set()
        for where, value in roots.items():
            self._hold(value, where, _DEPTH)

    def _hold(self, value: Any, where: str, depth: int, *, own: bool = False) -> Hashable:
        """What tells `value` from others; what it holds goes into nodes of their own."""
        if isinstance(value, _PLAIN):
            return value if isinstance(value, Hashable) else repr(value)
        if type(value) is tuple and all(isinstance(one, _PLAIN) for one in value):
            return tuple((type(one), repr(one)) for one in value)
        if isinstance(value, Tensor):
            return tensor_content(value)
        if isinstance(value, np.ndarray):
            return _array(value)
        if isinstance(value, types.MethodType):
            # Another object whenever it is asked for.
            return Same(value.__func__), Same(value.__self__)
        if isinstance(value, _CODE):
            return Same(value)
        kind = Same(type(value))
        if depth == 0 or id(value) in self._seen:
            return kind
        self._seen.add(id(value))
        if isinstance(value, nn.Module):
            self._module(value, where, depth)
        elif isinstance(value, (*_LISTS, *_MAPPINGS)):
            self._items(value, where, depth, own=own)
        elif isinstance(value, set | frozenset):
            plain = all(isinstance(one, _PLAIN) for one in value)
            return kind, frozenset(value) if plain else len(value)
        elif isinstance(value, partial):
            parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
            self._items(parts, where, depth, own=False)
        elif isinstance(value, types.SimpleNamespace) or not _closed(type(value)):
            self._object(value, where, depth)
        return kind

    def _items(self, value: Any, where: str, depth: int, *, own: bool) -> None:
        if isinstance(value, dict):
            items = list(dict.items(value))
        else:
            items = list(enumerate(value) if isinstance(value, _LISTS) else value.items())
        node = self.nodes[where] = Node(Same(type(value)), {})
        for key, one in items:
            name = key if isinstance(key, _PLAIN) else Same(key)
            node.held[name] = self._hold(one, f"{where}.{key}", depth - 1)
        if own:
            node.own = node.lazy = frozenset(node.held)

    def _object(self, value: Any, where: str, depth: int) -> Node:
        kind: Any = type(value)
        self.classes.update(kind.__mro__)
        state = own_state(kind)
        given = vars(value) if hasattr(value, "__dict__") else {}
        node = self.nodes[where] = Node(
            Same(kind),
            {},
            counted=frozenset(name for name in given if _hides(kind, name, state)),
            own=state.sets,
            lazy=state.sets | state.lazy,
        )
        is_module = isinstance(value, nn.Module)
        for name, one in _attributes(value):
            own = name in state.sets
            if is_module and own and isinstance(one, Tensor):
                continue  # of the last call
            known = own or name in state.fills
            node.held[name] = self._hold(one, f"{where}.{name}", depth - 1, own=known)
        return node

    def _module(self, module: nn.Module, where: str, depth: int) -> None:
        node = self._object(module, where, depth)
        tensors = dict([*module._parameters.items(), *module._buffers.items()])
        children = dict(module._modules.items())
        for name, tensor in tensors.items():
            node.held[name] = None if tensor is None else tensor_content(tensor)
        for name in _HOOKS:
            hooks = vars(module).get(name, {})
            node.held[name.strip("_")] = tuple(Same(hook) for hook in hooks.values())
        node.counted |= {*tensors, *children}
        for name, child in children.items():
            # Networks are deep; their depth is no measure of how far one has come from them.
            node.held[name] = self._hold(child, f"{where}.{name}", depth)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = vars(base).get(name)
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield name, member.__get__(value)
                except AttributeError:  # never set
                    continue
    bare = _BARE if isinstance(value, nn.Module) else ()
    for name, one in list(getattr(value, "__dict__", {}).items()):
        if name not in bare:
            yield name, one


def _hides(kind: type, name: str, state: OwnState) -> bool:
    """Whether an attribute of the object takes the place of one of its class."""
    for base in kind.__mro__:
        if name in vars(base):
            found = vars(base)[name]
            return callable(found) or not (isinstance(found, cached_property) or name in state.sets)
    return False


def _closed(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _CLOSED


def _array(array: np.ndarray) -> Hashable:
    if array.dtype.hasobject:
        return str(array.dtype), array.shape
    content = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return str(array.dtype), array.shape, content
