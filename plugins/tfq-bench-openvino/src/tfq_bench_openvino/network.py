"""The whole network in one OpenVINO model, in the place of its `forward`.

A call is traced and translated once; each size of batch is compiled when it is first seen. What
somebody watches (hooks on modules inside, a dispatch mode) runs module by module too, so that hooks
see every layer; the prediction is that of the model even then.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from tfq_bench.api import LoweringError, StepCursor
from tfq_bench_openvino.engine import Compiled, compile_model
from tfq_bench_openvino.executed import Execution
from tfq_bench_openvino.layers import Int8Layer
from tfq_bench_openvino.runtime import openvino
from tfq_bench_openvino.translate import translate

__all__ = ["FLOAT", "CompiledNetwork"]

FLOAT = "openvino float32 on integers"
"""The kernel of a layer that the engine chose to multiply in float."""

LIMIT = 4
"""Compiled models that are kept at most: a run has few sizes of batch."""

LIMIT_BYTES = 4 * 2**30
"""Of their weights together, which each has packed for itself; one is kept whatever it holds."""


class _Signature(NamedTuple):
    """What a translated model is made for; the first dimension of tensors is left out."""

    structure: TreeSpec
    leaves: tuple[Hashable, ...]


class _Translated(NamedTuple):
    """A translated model, and how its outputs become what the network returns."""

    model: openvino.Model
    structure: TreeSpec
    leaves: list[Any]
    counts: dict[str, int]


class _Ready(NamedTuple):
    """A model compiled for certain shapes, and what a call of it counts."""

    compiled: Compiled
    counts: dict[str, int]


class CompiledNetwork:
    """Stands in the place of a network's `forward`.

    Args:
        network: its layers are replaced already; it has no hooks yet.
        executed: shared by all layers; a call of a model adds what the engine runs.
        precision: of `compile_model`.

    Attributes:
        execution: of the model that was compiled last.
        seconds: spent on tracing and translating, and on compiling.
    """

    def __init__(
        self,
        network: nn.Module,
        step: StepCursor,
        executed: MutableMapping[str, int],
        *,
        precision: str = "f32",
    ) -> None:
        self._network, self._step, self._executed = network, step, executed
        self._precision = precision
        self._call: Callable[..., Any] = network.forward
        self._layers = [m for m in network.modules() if isinstance(m, Int8Layer)]
        held = sum(part.weight.nbytes for layer in self._layers for part in layer.operands.parts)
        self._limit = max(1, min(LIMIT, LIMIT_BYTES // max(1, held)))
        self._translated: dict[_Signature, _Translated] = {}
        self._ready: OrderedDict[tuple[_Signature, tuple[torch.Size, ...]], _Ready] = OrderedDict()
        self.execution: Execution | None = None
        self.seconds = {"translate": 0.0, "compile": 0.0}
        self._hooks: list[Any] = [
            torch_module._global_forward_hooks,
            torch_module._global_forward_pre_hooks,
        ]
        for module in list(network.modules())[1:]:
            self._hooks += [module._forward_hooks, module._forward_pre_hooks]

    def install(self) -> None:
        """Takes the place of the network's `forward`."""
        self._network.forward = self  # type: ignore[assignment]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network's `forward` takes and gives.

        Raises:
            LoweringError: the network cannot be translated.
        """
        leaves, structure = tree_flatten((args, kwargs))
        signature = _Signature(structure, tuple(_described(leaf) for leaf in leaves))
        watched = any(self._hooks) or torch._C._len_torch_dispatch_stack() > 0
        if watched:
            found = self._call(*args, **kwargs)
            if signature not in self._translated:
                return found  # a trace would call the hooks with numbers that mean nothing
        else:
            for layer in self._layers:
                layer.release()
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (signature, tuple(tensor.shape for tensor in tensors))
        if key not in self._ready:
            self._add(key, leaves, tensors)
        self._ready.move_to_end(key)
        ready, made = self._ready[key], self._translated[signature]
        results = iter(ready.compiled([self._step.index, *tensors]))
        if not watched:  # else the layers have counted themselves
            for name, count in ready.counts.items():
                self._executed[name] = self._executed.get(name, 0) + count
        outputs = [next(results) if leaf is None else leaf for leaf in made.leaves]
        return tree_unflatten(outputs, made.structure)

    def floats(self) -> dict[str, str]:
        """The primitive of each layer that was to run on bytes and that the engine runs on floats.

        Of the model that was compiled last.
        """
        if self.execution is None:
            return {}
        found = self.execution.primitives
        return {name: found[name][0] for name in found.keys() - self.execution.int8}

    def _add(
        self, key: tuple[_Signature, tuple[torch.Size, ...]], leaves: list[Any], tensors: list[Any]
    ) -> None:
        begin = time.perf_counter()
        signature, shapes = key
        if signature not in self._translated:
            self._translated[signature] = self._translate(signature.structure, leaves, tensors)
        middle = time.perf_counter()
        made = self._translated[signature]
        names = [port.get_any_name() for port in made.model.inputs]
        sizes = [[1], *(list(shape) for shape in shapes)]
        made.model.reshape(dict(zip(names, sizes, strict=True)))
        while len(self._ready) >= self._limit:
            self._ready.popitem(last=False)
        compiled = compile_model(made.model, self._precision)
        self.execution = Execution.of(compiled)
        self._ready[key] = _Ready(compiled, self._counts(made, self.execution))
        self.seconds["translate"] += middle - begin
        self.seconds["compile"] += time.perf_counter() - middle

    def _translate(
        self, structure: TreeSpec, leaves: Sequence[Any], tensors: Sequence[Tensor]
    ) -> _Translated:
        seen: list[Any] = []

        def call(*values: Tensor) -> list[Tensor]:
            given = iter(values)
            filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = tree_unflatten(filled, structure)
            found, shape = tree_flatten(self._call(*args, **kwargs))
            seen[:] = [shape, [None if isinstance(leaf, Tensor) else leaf for leaf in found]]
            return [leaf for leaf in found if isinstance(leaf, Tensor)]

        before = dict(self._executed)
        self._executed.clear()
        try:
            model = translate(call, self._network, self._step, tensors)
            counts = dict(self._executed)
        finally:
            self._executed.clear()
            self._executed.update(before)
        if len(model.inputs) != 1 + len(tensors):
            raise LoweringError(
                f"OpenVINO gave the network {len(model.inputs)} inputs, expected "
                f"{1 + len(tensors)}; use another backend."
            )
        return _Translated(model, seen[0], seen[1], counts)

    def _counts(self, made: _Translated, execution: Execution) -> dict[str, int]:
        """Kernels of one call: what the trace counted (simulated layers), and what runs."""
        counts = dict(made.counts)
        for layer in self._layers:
            if layer.operands.name not in execution.primitives:
                continue
            kernel = layer.kernel if layer.operands.name in execution.int8 else FLOAT
            counts[kernel] = counts.get(kernel, 0) + 1
        return counts


def _described(leaf: Any) -> Hashable:
    """What a translated model depends on: type and shape of a tensor, anything else by value."""
    if isinstance(leaf, Tensor):
        return (leaf.dtype, tuple(leaf.shape[1:]), leaf.dim())
    return (type(leaf), leaf)
