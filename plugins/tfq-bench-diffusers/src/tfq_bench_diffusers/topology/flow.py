"""Data flow: what each tensor of a network was made from, followed operation by operation.

Nothing is computed for it: the run is on meta tensors, which have shapes but no values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Flow", "FlowMode", "Part"]

_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in (
        *("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "matmul", "linear"),
        *("convolution", "conv1d", "conv2d", "conv3d", "_convolution"),
    )
)
"""What multiplies with a weight, unlike sums and tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What one tensor was made from.

    Args:
        inputs: the network's inputs that its values depend on.
        layers: the layers whose outputs it was last made from, with no other layer in between.
        parameters: the network's matrices that it was made from, as long as no input has entered.
    """

    inputs: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several tensors that were concatenated: its size, and what its values depend on."""

    size: int
    inputs: frozenset[str]


class FlowMode(TorchDispatchMode):
    """While active, follows the flow of every tensor.

    Tensors are told apart by identity, so all are kept alive; on the meta device they are empty.

    Attributes:
        meetings: by layer, pairs (inputs of its output, inputs of what was made from it) for
            every operation that brought further inputs in.
        products: matrices of the network that were multiplied with outside of `inside`.
        inside: name of the layer that is being called, else None; its own products are expected.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meetings: dict[str, set[tuple[frozenset[str], frozenset[str]]]] = {}
        self.products: dict[str, None] = {}
        self.inside: str | None = None
        self._held: dict[int, Tensor] = {}
        self._flows: dict[int, Flow] = {}
        self._by_storage: dict[int, list[int]] = {}
        self._parts: dict[int, tuple[int, tuple[Part, ...]]] = {}

    def declare(self, tensor: Tensor, flow: Flow) -> None:
        """States the flow of `tensor`, in place of what was followed."""
        key = id(tensor)
        if key not in self._held:
            self._held[key] = tensor
            self._by_storage.setdefault(_storage(tensor), []).append(key)
        self._flows[key] = flow

    def of(self, tensor: Tensor) -> Flow:
        """The flow of `tensor`; that of a constant when it was never seen."""
        return self._flows.get(id(tensor), Flow())

    def parts(self, tensor: Tensor, dim: int) -> tuple[Part, ...]:
        """What was concatenated along `dim` to give `tensor`; empty when nothing was."""
        found, parts = self._parts.get(id(tensor), (dim, ()))
        return parts if found == dim % tensor.dim() else ()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func` on the meta device where any of its tensors is there."""
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        flow = self._joined(func, given)
        schema = func._schema
        if schema.is_mutable:
            self._written(schema, args, kwargs, flow)
        if any(tensor.is_meta for tensor in given):
            args, kwargs = self._on_meta(args), self._on_meta(kwargs)
            if kwargs.get("device") is not None:
                kwargs["device"] = torch.device("meta")
        result = func(*args, **kwargs)
        for made in pytree.tree_leaves(result):
            if isinstance(made, Tensor):
                self.declare(made, flow)
        if schema.name == "aten::cat":
            self._note_parts(result, *args, **kwargs)
        return result

    def _joined(self, func: Any, given: Iterable[Tensor]) -> Flow:
        """What an operation on `given` results in; notes what meets in it."""
        name = func._schema.name
        short = name.removeprefix("aten::")
        if short.startswith("new_") or short.endswith("_like"):
            return Flow()  # takes a shape, no values
        flows = [self.of(tensor) for tensor in given]
        inputs = frozenset().union(*(flow.inputs for flow in flows))
        parameters = frozenset().union(*(flow.parameters for flow in flows))
        if name in _PRODUCTS and self.inside is None:
            self.products.update(dict.fromkeys(sorted(parameters)))
        for flow in flows:
            if flow.inputs != inputs:
                for layer in flow.layers:
                    self.meetings.setdefault(layer, set()).add((flow.inputs, inputs))
        return Flow(
            inputs=inputs,
            layers=frozenset().union(*(flow.layers for flow in flows)),
            parameters=frozenset() if inputs else parameters,
        )

    def _on_meta(self, values: Any) -> Any:
        """Constants that the network holds outside of its buffers lie on another device."""

        def moved(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return tensor
            twin = torch.empty_like(tensor, device="meta")
            self.declare(twin, self.of(tensor))
            return twin

        return pytree.tree_map_only(Tensor, moved, values)

    def _written(
        self, schema: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], flow: Flow
    ) -> None:
        """All views of what is written in place now depend on what is written."""
        for place, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            for tensor in pytree.tree_leaves(value):
                if isinstance(tensor, Tensor):
                    self.declare(tensor, flow)
                    for key in self._by_storage[_storage(tensor)]:
                        self._flows[key] = flow

    def _note_parts(self, result: Tensor, tensors: Iterable[Tensor], dim: int = 0) -> None:
        parts = tuple(
            Part(size=tensor.shape[dim], inputs=self.of(tensor).inputs) for tensor in tensors
        )
        self._parts[id(result)] = (dim % result.dim(), parts)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
