"""What every backend does besides its kernels, so that all of them compute the same network."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import nn

from tfq_bench.errors import LoweringError, QuantizationError
from tfq_bench.quant.layers import find_layer, replace_layer, round_to_half
from tfq_bench.quant.lower.attention import quantize_attention
from tfq_bench.quant.state.affine import per_channel
from tfq_bench.quant.state.temporal_cache import CachedProjection, SkippedLayer

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
    from tfq_bench.types.networks import KernelUse, LoadedModel, StepCursor

__all__ = ["check_state", "copy_network", "finish_lowering", "int8_refusal", "int8_weight"]

_MAX_TERMS = (2**31 - 1) // (255 * 128)
"""How many products of a code less its zero point and a weight surely fit an int32: 65,793."""


def copy_network(network: nn.Module, replaced: Collection[str]) -> nn.Module:
    """A copy of `network`, except for the weights of the layers that are going to be replaced.

    Those still are the original's: a network may be too large to lie in memory twice.

    Args:
        replaced: names of convolution and linear layers.
    """
    shared = [
        parameter
        for name in replaced
        for parameter in find_layer(network, name).parameters(recurse=False)
    ]
    return copy.deepcopy(network, {id(parameter): parameter for parameter in shared})


def check_state(loaded: LoadedModel, state: QuantizedState) -> None:
    """Nothing, when `state` was made for this model and sampler.

    Raises:
        LoweringError: says what differs.
    """
    if state.model != loaded.model.digest:
        raise LoweringError(
            f"the state was made from model {state.model}, the model is {loaded.model.digest}."
        )
    if tuple(state.timesteps) != tuple(loaded.sampler.timesteps):
        raise LoweringError(
            f"the state was made for {len(state.timesteps)} timesteps that differ from the "
            f"sampler's {len(loaded.sampler.timesteps)}; quantize for this sampler."
        )
    features = set(loaded.topology.time_features)
    for name, cache in state.cache.items():
        if name not in features:
            raise LoweringError(
                f"the state caches '{name}', whose output does not depend on the timestep alone; "
                f"expected one of {sorted(features)}."
            )
        layer = loaded.topology.layer(name)
        if layer.kind != "linear" or layer.weight_shape[0] != cache.values.shape[1]:
            raise LoweringError(
                f"cache of '{name}': expected a linear layer of {cache.values.shape[1]} outputs, "
                f"the model's is {layer.kind} of {layer.weight_shape[0]}."
            )
    channels = {layer.name: layer.weight_shape[0] for layer in loaded.topology.layers}
    for name, bias in state.biases.items():
        if channels.get(name) != len(bias):
            raise LoweringError(
                f"bias of exempt layer '{name}': the state has {len(bias)} values, the model "
                f"{f'has {channels[name]} outputs' if name in channels else 'has no such layer'}."
            )


def int8_weight(part: LayerPart) -> Tensor:
    """Codes minus zero points, shape of the weight slice, int16 so that none wraps around."""
    return part.weight.to(torch.int16) - per_channel(part.zero_point, part.weight).to(torch.int16)


def int8_refusal(layer: QuantizedLayer) -> str | None:
    """Why kernels that add products of int8 in int32 cannot compute `layer`, None when they can."""
    for part in layer.parts:
        if part.activation is None:
            return "float activations: the kernels take 8-bit codes"
        weight = int8_weight(part)
        low, high = int(weight.min()), int(weight.max())
        if low < -128 or high > 127:
            return f"weight minus zero point lies in [{low}, {high}], outside int8"
        if (terms := weight[0].numel()) > _MAX_TERMS:
            return f"sums of {terms} products may overflow int32"
    return None


@torch.no_grad()
def finish_lowering(
    network: nn.Module,
    loaded: LoadedModel,
    state: QuantizedState,
    step: StepCursor,
    executed: dict[str, int],
) -> tuple[KernelUse, ...]:
    """Float16 weights, biases, caches and quantized attention, put into `network` after its layers.

    Args:
        network: a backend's own copy of `loaded.network`, its quantized layers replaced already.
        step, executed: those that the backend's `Lowered` carries.

    Returns:
        How the parts that are no layers are executed, to be listed after the layers.

    Raises:
        LoweringError: a weight is too large for float16, or an attention is not there.
    """
    for name in state.half:
        try:
            round_to_half(find_layer(network, name), name)
        except QuantizationError as error:
            raise LoweringError(str(error)) from error
    for name, bias in state.biases.items():
        layer = find_layer(network, name)
        layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=False)
    for name in sorted(state.dropped(loaded.topology) - set(state.cache)):
        features = loaded.topology.layer(name).weight_shape[0]
        replace_layer(network, name, SkippedLayer(features))
    for name, cache in state.cache.items():
        inner = None if cache.complete else network.get_submodule(name)
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, CachedProjection(cache, inner, step))
    return tuple(
        quantize_attention(network, tables, step, executed) for tables in state.attention.values()
    )
