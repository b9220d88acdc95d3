"""The topology of a diffusers network, known or not: roles, blocks, temporal layers, splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tfq_bench import api
from tfq_bench.quant import WeightedLayer, trace_topology
from tfq_bench_diffusers.topology.flow import Flow, trace_flow

__all__ = ["TIMESTEP", "diffusers_topology"]

TIMESTEP = "timestep"


def diffusers_topology(network: nn.Module, inputs: Mapping[str, Any]) -> api.Topology:
    """Layers, blocks and temporal modules of a network in execution order.

    A diffusers network is built again from its configuration on the meta device and followed there,
    so that neither its size nor that of the inputs matters. Another network is followed as it is.

    Args:
        inputs: keyword arguments of its `forward` for ONE image: first the state x, among them
            `timestep`, then conditions. Only shapes and types matter.

    Raises:
        QuantizationError: it cannot be called so, a weight is of an unknown kind, or no layer
            depends on the state.
    """
    state = next(iter(inputs))
    if TIMESTEP not in inputs or not isinstance(inputs[state], Tensor):
        raise api.QuantizationError(
            f"a topology needs the state first and '{TIMESTEP}' among the inputs, found "
            f"{', '.join(inputs)}."
        )
    twin = _meta_twin(network)
    device = next(twin.parameters()).device
    given = {name: _moved(value, device) for name, value in inputs.items()}
    try:
        flow = trace_flow(twin, given)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise api.QuantizationError(
            f"{type(network).__name__} cannot be called with {', '.join(inputs)}: {error}. Give "
            "its topology the inputs that its forward takes for one image."
        ) from error
    roles = _roles(twin, flow, state)
    blocks = _blocks(twin)
    return trace_topology(
        twin,
        lambda net: net(**given),
        lambda name, _: roles[name],
        lambda name: blocks.get(name, name),
        splits={name: held.split for name, held in flow.layers.items() if held.split is not None},
        float_types=_float_types(),
        time_features=_time_features(flow),
    )


def _meta_twin(network: nn.Module) -> nn.Module:
    config = getattr(network, "config", None)
    if config is None or not hasattr(type(network), "from_config"):
        return network
    with torch.device("meta"):
        twin: nn.Module = type(network).from_config(config)  # type: ignore[attr-defined]
    return twin.eval()


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(held, device) for name, held in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def _time_features(flow: Flow) -> tuple[str, ...]:
    """Layers whose output depends on the timestep alone and meets something that does not."""
    return tuple(
        name
        for name, layer in flow.layers.items()
        if layer.sources == {TIMESTEP} and flow.enters[name]
    )


def _roles(network: nn.Module, flow: Flow, state: str) -> dict[str, api.Role]:
    temporal = {
        name
        for name, layer in flow.layers.items()
        if TIMESTEP in layer.sources and state not in layer.sources
    }
    # What another temporal layer reads is part of h(t), whatever else reads it too.
    inner = {maker for name in temporal for maker in flow.layers[name].makers}
    roles: dict[str, api.Role] = {}
    for name, layer in flow.layers.items():
        if name in temporal:
            projects = state in flow.enters[name] and name not in inner
            roles[name] = "time-projection" if projects else "time-mlp"
        elif name in flow.output:
            roles[name] = "output"
        elif not layer.makers and state in layer.sources:
            roles[name] = "input"
        else:
            conditional = bool(layer.sources) and state not in layer.sources
            roles[name] = _role_by_place(network, name, conditional=conditional)
    if state not in set().union(*(layer.sources for layer in flow.layers.values())):
        raise api.QuantizationError(
            f"no layer of {type(network).__name__} depends on '{state}'; expected the first of "
            "the inputs to be the state x_t."
        )
    return roles


def _role_by_place(network: nn.Module, name: str, *, conditional: bool) -> api.Role:
    """The role that the modules around a layer give it."""
    from diffusers.models.attention import FeedForward
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.upsampling import Upsample2D

    parts = name.split(".")
    around = [network.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))]
    layer = network.get_submodule(name)
    for module in reversed(around):
        if isinstance(module, FeedForward):
            return "feed-forward"
        if all(hasattr(module, part) for part in ("to_q", "to_k", "to_v")):
            return "attention"
        if conditional:
            continue
        if isinstance(module, Downsample2D | Upsample2D):
            return "resample"
        if getattr(module, "conv_shortcut", None) is layer:
            return "shortcut"
        if hasattr(module, "conv1") and hasattr(module, "conv2"):
            return "conv"
        if hasattr(module, "transformer_blocks") and hasattr(module, "proj_in"):
            return "attention"  # into and out of a stack of transformer blocks inside a U-Net
    return "condition" if conditional else "other"


def _blocks(network: nn.Module) -> dict[str, str]:
    """The block of each layer that is in one, by name.

    A block is an element of a list of modules that holds two layers or more, and no further such
    element: a residual block, a transformer block, an attention with its own residual.
    """
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    found = []
    for name in lists:
        for number, module in enumerate(network.get_submodule(name)):  # type: ignore[arg-type]
            layers = [held for held in module.modules() if isinstance(held, WeightedLayer)]
            if len(layers) > 1 and not isinstance(module, WeightedLayer):
                found.append(f"{name}.{number}")
    inner = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    return {
        f"{block}.{name}": block
        for block in inner
        for name, module in network.get_submodule(block).named_modules()
        if isinstance(module, WeightedLayer)
    }


def _float_types() -> tuple[type[nn.Module], ...]:
    """Modules whose own weights are tables that are added or looked up, never multiplied."""
    from diffusers import PixArtTransformer2DModel
    from diffusers.models.attention import BasicTransformerBlock

    return (nn.Embedding, BasicTransformerBlock, PixArtTransformer2DModel)
