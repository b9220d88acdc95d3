"""One layer of a network: finding and exchanging it, and the parts of its input."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import torch
from torch import nn

from tfq_bench.errors import QuantizationError

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.types import Layer

__all__ = [
    "WeightedLayer",
    "apply_layer",
    "find_layer",
    "input_parts",
    "part_name",
    "replace_layer",
    "round_to_half",
]

WeightedLayer = nn.Conv2d | nn.Linear
"""The layer types that are quantized; subclasses included."""


def find_layer(network: nn.Module, name: str) -> WeightedLayer:
    """The convolution or linear layer called `name`.

    Raises:
        QuantizationError: there is none (offers the nearest names), or it is of another type.
    """
    try:
        module = network.get_submodule(name)
    except AttributeError:
        known = [key for key, held in network.named_modules() if isinstance(held, WeightedLayer)]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
        raise QuantizationError(f"the network has no layer '{name}'{hint}") from None
    if not isinstance(module, WeightedLayer):
        raise QuantizationError(
            f"layer '{name}' must be Conv2d or Linear, found {type(module).__name__}."
        )
    return module


def replace_layer(network: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` where the layer called `name` is, in place.

    Raises:
        QuantizationError: there is no convolution or linear layer of this name.
    """
    find_layer(network, name)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)


@torch.no_grad()
def round_to_half(layer: nn.Module, name: str) -> None:
    """Rounds weight and bias to float16, in place; their type stays.

    Raises:
        QuantizationError: a value is too large for float16.
    """
    for parameter in layer.parameters(recurse=False):
        rounded = parameter.half()
        if not bool(torch.isfinite(rounded).all()):
            raise QuantizationError(
                f"layer '{name}' is to be kept in float16, but holds a value of magnitude "
                f"{float(parameter.abs().max()):.3g}; keep it in float32."
            )
        parameter.copy_(rounded)


def apply_layer(layer: WeightedLayer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `layer` computes of x with another weight and bias; its stride, padding and groups."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    return nn.functional.conv2d(
        x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def input_parts(layer: Layer, module: WeightedLayer, *, split: bool) -> tuple[tuple[int, int], ...]:
    """Input channels [start, stop) of each part of a layer that has parameters of its own.

    With `split`, both halves of a concatenation in front of a shortcut are parts of their own, as
    in Q-Diffusion. The norm and the 3x3 convolution that read the same concatenation stay whole,
    and so does a grouped convolution, whose weight has no halves.
    """
    groups = int(getattr(module, "groups", 1))
    channels = layer.weight_shape[1] * groups
    if split and layer.role == "shortcut" and layer.split is not None and groups == 1:
        return ((0, layer.split), (layer.split, channels))
    return ((0, channels),)


def part_name(layer: str, bounds: tuple[int, int], parts: int) -> str:
    """What one of a layer's `parts` is called: the layer when it is whole, else `layer[0:64]`."""
    return layer if parts == 1 else f"{layer}[{bounds[0]}:{bounds[1]}]"
