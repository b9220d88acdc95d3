"""The steps of torchao's PT2E on an exported graph: prepare, ranges, convert, lower to x86.

torchao is imported when a step is taken.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from tfq_bench.api import LoweringError

__all__ = ["converted", "lowered", "prepared", "ranges", "restore"]


def prepared(graph: GraphModule, *, reduced: bool) -> GraphModule:
    """The graph with torchao's observers, which have seen nothing.

    Args:
        reduced: torchao's `reduce_range`, activations of 7 bits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how torchao registers its classes
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        config = x86.get_default_x86_inductor_quantization_config(reduce_range=reduced)
        quantizer = x86.X86InductorQuantizer()
        # For the whole graph it would observe integer tensors too, and fail.
        for kind in (nn.Conv2d, nn.Linear):
            quantizer.set_module_type_qconfig(kind, config)
        return prepare_pt2e(graph, quantizer)


def ranges(graph: GraphModule) -> dict[str, list[float | int]]:
    """Scale and zero point of activations, by the name of their observer in a prepared graph."""
    return {
        name: [one.item() for one in observer.calculate_qparams()]
        for name, observer in _observers(graph).items()
    }


def restore(graph: GraphModule, found: Mapping[str, Sequence[Any]], where: Path) -> None:
    """Lets the observers of activations answer what `ranges` found, whatever they have seen.

    Raises:
        LoweringError: the graph has others than the file `where`, as of another torchao.
    """
    observers = _observers(graph)
    if observers.keys() != found.keys():
        odd = sorted(observers.keys() ^ found.keys())
        raise LoweringError(
            f"'{where}': expected the ranges of this graph, found others: {odd[:3]}."
        )
    for name, (scale, zero_point) in found.items():
        observers[name].calculate_qparams = partial(
            tuple, (torch.tensor([scale]), torch.tensor([zero_point]))
        )


def converted(graph: GraphModule) -> GraphModule:
    """A prepared graph with quantized weights, in tensors of its own, without the float ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        with torch.random.fork_rng(devices=()):  # it draws numbers, for examples of patterns
            found = convert_pt2e(graph)
    return copy.deepcopy(GraphModule(found, found.graph))


def lowered(graph: GraphModule, example: tuple[Tensor, ...]) -> GraphModule:
    """A converted graph with oneDNN's int8 products wherever torchao's patterns fit.

    Called by its `forward`: its hooks hold inputs against the number of rows of the example.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

        return lower_pt2e_quantized_to_x86(graph, example)


def _observers(graph: GraphModule) -> dict[str, Any]:
    """Those of activations; those of weights have a range a channel."""
    return {
        name: module
        for name, module in graph.named_modules()
        if getattr(module, "qscheme", None) == torch.per_tensor_affine
    }
