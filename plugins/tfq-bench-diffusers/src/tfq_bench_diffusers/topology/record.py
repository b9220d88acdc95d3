"""What each layer reads while a network runs, and which unit calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tfq_bench.quant import WeightedLayer
from tfq_bench_diffusers.topology.flow import Flow, FlowMode
from tfq_bench_diffusers.topology.units import find_units

__all__ = ["LayerTrace", "Recorder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTrace:
    """What one layer did in the run.

    Args:
        inputs: the network's inputs that its own input depends on.
        sources: the layers whose outputs it reads, with no layer in between.
        vector: whether it gives one row per image, as opposed to one per pixel or token.
        split: channels of the first of two concatenated states that it reads directly.
        unit: name of the unit that called it, None for a lone layer.
    """

    name: str
    inputs: frozenset[str]
    sources: frozenset[str]
    vector: bool
    split: int | None
    unit: str | None


class Recorder:
    """What hooks record while the network runs under a `FlowMode`.

    Attributes:
        layers: by name, in execution order.
    """

    def __init__(self, network: nn.Module, mode: FlowMode, state: str) -> None:
        self._mode, self._state = mode, state
        self._network = network
        self._units = find_units(network)
        self._active: list[str] = []
        self._unfit: set[str] = set()
        self.layers: dict[str, LayerTrace] = {}

    def watch(self) -> list[Any]:
        """Registers the hooks and gives their handles."""
        handles: list[Any] = []
        modules = dict(self._network.named_modules())
        for name in self._units:
            handles.append(modules[name].register_forward_pre_hook(self._enter(name)))
            handles.append(modules[name].register_forward_hook(self._leave))
        for name, module in modules.items():
            if isinstance(module, WeightedLayer):
                handles.append(module.register_forward_pre_hook(self._begin(name)))
                handles.append(module.register_forward_hook(self._end(name), with_kwargs=True))
        return handles

    def traced(self) -> dict[str, LayerTrace]:
        """The layers, in execution order; those of units that cannot be blocks stand alone."""
        return {
            name: replace(layer, unit=None) if layer.unit in self._unfit else layer
            for name, layer in self.layers.items()
        }

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._active.append(name)

    def _leave(self, _: nn.Module, __: Any, output: Any) -> None:
        name = self._active.pop()
        first = output[0] if isinstance(output, (tuple, list)) else output
        count = sum(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(output))
        if not isinstance(first, Tensor) or count > 1:
            # A block is learned by its one output; here a second stream would be forgotten.
            self._unfit.add(name)

    def _begin(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._mode.inside = name

        return hook

    def _end(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            self._mode.inside = None
            found = self._read(name, module, (*args, *kwargs.values())[0], output)
            known = self.layers.get(name)
            if known is not None:
                found = replace(
                    known,
                    inputs=known.inputs | found.inputs,
                    sources=known.sources | found.sources,
                    vector=known.vector and found.vector,
                    split=known.split if known.split == found.split else None,
                )
            self.layers[name] = found
            flow = Flow(inputs=found.inputs, layers=frozenset({name}))
            self._mode.declare(output, flow)

        return hook

    def _read(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> LayerTrace:
        assert isinstance(module, WeightedLayer)
        flow = self._mode.of(x)
        image = isinstance(module, nn.Conv2d)
        parts = self._mode.parts(x, x.dim() - 3 if image else -1)
        two = len(parts) == 2 and all(self._state in part.inputs for part in parts)
        inside = [unit for unit in self._active if name.startswith(f"{unit}.")]
        return LayerTrace(
            name=name,
            inputs=flow.inputs,
            sources=flow.layers,
            vector=output.numel() == len(module.weight),
            split=parts[0].size if two else None,
            unit=inside[-1] if inside else None,
        )
