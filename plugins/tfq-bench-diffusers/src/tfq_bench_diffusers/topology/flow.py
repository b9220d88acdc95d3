"""What every layer of a network depends on, found by following tensors through one run.

Each tensor carries two sets: the inputs of the network that it depends on, and the layers whose
outputs it was last made from. Names and classes of modules play no part, so this holds for networks
never seen before. It works on the meta device, where a run costs neither memory nor arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from tfq_bench.quant import WeightedLayer

__all__ = ["Flow", "LayerFlow", "trace_flow"]

Names = frozenset[str]
NOTHING: Names = frozenset()


@dataclass(slots=True, kw_only=True)
class LayerFlow:
    """What is known of one layer after the run.

    Args:
        sources: inputs of the network that its input depends on, by name.
        makers: layers that its input was last made from, nothing but other operations between.
        split: channels of the first of two tensors whose concatenation it reads, else None.
    """

    sources: Names = NOTHING
    makers: Names = NOTHING
    split: int | None = None


@dataclass(slots=True, kw_only=True)
class Flow:
    """The result of `trace_flow`.

    Args:
        layers: by name, in execution order.
        enters: for each layer, on what else the results of operations depend that read its output
            directly; empty for a layer that only layers of its own kind read.
        output: layers that the network's output was last made from.
    """

    layers: dict[str, LayerFlow] = field(default_factory=dict)
    enters: dict[str, Names] = field(default_factory=dict)
    output: Names = NOTHING


def trace_flow(network: nn.Module, inputs: Mapping[str, Any]) -> Flow:
    """Follows one call `network(**inputs)`.

    Args:
        inputs: keyword arguments. Tensors in nested mappings are inputs of their own, named by
            their own key.
    """
    flow = Flow()
    mode = _Follow(flow)
    for name, value in inputs.items():
        for key, tensor in _tensors(name, value):
            mode.sources[tensor] = frozenset({key})
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, WeightedLayer):
            handles.append(module.register_forward_pre_hook(mode.entering(name)))
            handles.append(module.register_forward_hook(mode.leaving(name)))
    try:
        with torch.no_grad(), mode:
            result = network(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    for tensor in pytree.tree_leaves(result):
        if isinstance(tensor, Tensor):
            flow.output |= mode.makers.get(tensor, NOTHING)
    return flow


def _tensors(name: str, value: Any) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [pair for key, held in value.items() for pair in _tensors(key, held)]
    return []


class _Follow(TorchDispatchMode):
    """Passes on, at every operation, what its operands depend on."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.sources = WeakTensorKeyDictionary()
        self.makers = WeakTensorKeyDictionary()
        self.joined = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        result = func(*args, **kwargs)
        operands = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        sources = [self.sources.get(operand, NOTHING) for operand in operands]
        everything = NOTHING.union(*sources)
        for operand, held in zip(operands, sources, strict=True):
            for maker in self.makers.get(operand, NOTHING):
                self.flow.enters[maker] |= everything - held
        makers = NOTHING.union(*(self.makers.get(operand, NOTHING) for operand in operands))
        for output in pytree.tree_leaves(result):
            if isinstance(output, Tensor):
                self.sources[output] = everything
                self.makers[output] = makers
        if func is torch.ops.aten.cat.default and _dimension(args, kwargs) == 1:
            parts = args[0]
            if len(parts) == 2 and all(self.sources.get(part) for part in parts):
                self.joined[result] = parts[0].shape[1]
        return result

    def entering(self, name: str) -> Any:
        """Hook that notes what a layer reads."""

        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            layer = self.flow.layers.setdefault(name, LayerFlow())
            self.flow.enters.setdefault(name, NOTHING)
            layer.sources |= self.sources.get(inputs[0], NOTHING)
            layer.makers |= self.makers.get(inputs[0], NOTHING)
            layer.split = self.joined.get(inputs[0], layer.split)

        return hook

    def leaving(self, name: str) -> Any:
        """Hook that makes a layer the only maker of its output."""

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.sources[output] = self.sources.get(inputs[0], NOTHING)
            self.makers[output] = frozenset({name})

        return hook


def _dimension(args: Any, kwargs: Any) -> int:
    return int(args[1] if len(args) > 1 else kwargs.get("dim", 0))
