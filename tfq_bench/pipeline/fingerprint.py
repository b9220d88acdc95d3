"""What a loaded model was, to see after each piece of foreign code that it still is.

Results must not depend on what ran before in the same process, so a network that a plugin changed
must never be used again. Every value counts: sums of the tensors' bits, which any single change
moves, and some values by position, which a rearrangement moves. That reads a tensor once, two
tenths of a second for a gigabyte; version counters would be cheaper, and blind to `.data`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Iterator, Mapping
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tfq_bench.protocols import LoadedModel

__all__ = ["Fingerprint"]

_SAMPLE = 64
_DEPTH = 4
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Fingerprint:
    """A loaded model at one moment: the network, and what model and sampler hold besides."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._network = dict(_network(loaded.network, "network"))
        self._rest = dict(_rest(loaded))
        kinds = {type(module) for module in loaded.network.modules()}
        self._forwards = {kind: kind.__dict__["forward"] for kind in kinds if _own(kind)}

    def changes(self) -> list[str]:
        """What is no longer as it was, by name; what a model loads later is taken in as it is."""
        now = dict(_network(self._loaded.network, "network"))
        names = [*self._network, *(name for name in now if name not in self._network)]
        found = [name for name in names if _differ(self._network.get(name), now.get(name))]
        rest = dict(_rest(self._loaded))
        found += [n for n, was in self._rest.items() if n in rest and _differ(was, rest[n])]
        if not found:
            self._rest = {**rest, **self._rest}
        return found

    def restore_classes(self) -> None:
        """Gives the network's classes their code back, which loading it again would not."""
        for kind, forward in self._forwards.items():
            if kind.__dict__.get("forward") is not forward:
                kind.forward = forward


def _own(kind: type) -> bool:
    return "forward" in kind.__dict__


def _differ(one: Any, other: Any) -> bool:
    return one is None or other is None or type(one) is not type(other) or one != other


def _network(network: nn.Module, where: str) -> Iterator[tuple[str, Hashable]]:
    """Tensors, classes, hooks, modes and constants of every module."""
    for name, module in network.named_modules(prefix=where):
        held = module.__dict__
        # Objects, not their ids: those of what is gone are used again.
        yield name, (type(module), type(module).forward, held.get("forward"), module.training)
        yield f"hooks of {name}", tuple(hook for kind in _HOOKS for hook in held[kind].values())
        constants = (str(key) for key in getattr(module, "__constants__", ()))
        yield (
            f"constants of {name}",
            repr([(key, held.get(key)) for key in constants if not _is_held(module, key)]),
        )
        if "processor" in held:
            yield f"processor of {name}", _Same(held["processor"])
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{name}.{key}", _tensor(tensor)


def _rest(loaded: LoadedModel) -> Iterator[tuple[str, Hashable]]:
    """Numbers, tensors and networks that model and sampler hold: decoders, schedules, guidance."""
    seen = {id(loaded.network)}
    for where, value in (("model", loaded.model), ("sampler", loaded.sampler)):
        held = getattr(value, "__dict__", {})
        yield from _walk(held, where, seen, _DEPTH)
        hidden = {k: v for k, v in held.items() if isinstance(v, FunctionType | MethodType)}
        # By function: a bound method is another object whenever it is asked for.
        yield (
            f"methods of {where}",
            tuple((k, _Same(getattr(v, "__func__", v))) for k, v in sorted(hidden.items())),
        )
    yield "sampler.timesteps", repr(tuple(loaded.sampler.timesteps))
    yield "model.latent_shape", repr(tuple(loaded.model.latent_shape))


def _walk(value: Any, where: str, seen: set[int], depth: int) -> Iterator[tuple[str, Hashable]]:
    if isinstance(value, Tensor):
        yield where, _tensor(value)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        content = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        yield where, (str(value.dtype), value.shape, content)
    elif isinstance(value, bool | float | str):  # a count of calls is no matter
        yield where, repr(value)
    elif depth == 0 or id(value) in seen:
        return
    elif isinstance(value, nn.Module):
        seen.add(id(value))
        yield from _network(value, where)
    elif isinstance(value, Mapping | list | tuple):
        seen.add(id(value))
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in list(items):
            yield from _walk(one, f"{where}.{key}", seen, depth - 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        seen.add(id(value))
        for field in dataclasses.fields(value):
            one = getattr(value, field.name, None)
            yield from _walk(one, f"{where}.{field.name}", seen, depth - 1)


def _tensor(tensor: Tensor) -> Hashable:
    """Equal for equal tensors, and for others only by a chance of one in very many."""
    facts = (tensor.dtype, tuple(tensor.shape), str(tensor.device), tensor.requires_grad)
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return (*facts, tensor._version)
    flat = _flat(tensor.detach())
    # Words of eight bytes: sums of narrower integers are not vectorized, fifty times as slow.
    words = 8 // flat.element_size()
    whole = flat.numel() // words * words
    total = int(flat[:whole].view(torch.int64).sum()) if whole else 0
    some = flat[:: max(flat.numel() // _SAMPLE, 1)][:_SAMPLE]
    rest = flat[whole:].view(_BITS[flat.element_size()])
    return (*facts, total, tuple(rest.tolist()), tuple(some.view(rest.dtype).tolist()))


def _flat(tensor: Tensor) -> Tensor:
    """The elements in one dimension, as they lie in memory where that is possible."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    flat = tensor.reshape(-1)
    return flat.clone() if flat.storage_offset() * flat.element_size() % 8 else flat


def _is_held(module: nn.Module, key: str) -> bool:
    return key in module._parameters or key in module._buffers or key in module._modules


class _Same:
    """Equal to another of the same object only, which it keeps alive."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)
