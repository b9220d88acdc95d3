"""What each layer is for, from what it depends on and from the types of the modules around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusers.models.attention import FeedForward
from diffusers.models.downsampling import Downsample2D, FirDownsample2D
from diffusers.models.resnet import ResnetBlock2D, ResnetBlockCondNorm2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import FirUpsample2D, Upsample2D

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from tfq_bench import api
    from tfq_bench_diffusers.topology.record import LayerTrace
    from tfq_bench_diffusers.topology.trace import NetworkTrace

__all__ = ["Temporal", "find_temporal", "role_of"]

RESIDUAL = (ResnetBlock2D, ResnetBlockCondNorm2D)
RESAMPLE = (Downsample2D, FirDownsample2D, Upsample2D, FirUpsample2D)
QUERIES = ("to_q", "to_qkv")
"""What any attention of diffusers calls its first projection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Temporal:
    """The layers between the timestep and the state, in execution order.

    Args:
        mlp: those that another temporal layer reads.
        projections: those that are read by something else.
        features: see `Topology.time_features`.
    """

    mlp: tuple[str, ...]
    projections: tuple[str, ...]
    features: tuple[str, ...]


def find_temporal(trace: NetworkTrace, modules: Mapping[str, nn.Module]) -> Temporal:
    """The layers that depend on the timestep but not on the state, one row per image."""
    alone = frozenset({trace.time})
    temporal = {
        name: layer
        for name, layer in trace.layers.items()
        if trace.time in layer.inputs
        and trace.state not in layer.inputs
        and layer.vector
        and not _in_attention(name, modules)
    }
    # A layer of t alone that gives a row per token has no place in a table; what it reads has.
    elsewhere = frozenset[str]().union(
        *(layer.sources for name, layer in trace.layers.items() if name not in temporal)
    )
    features = tuple(
        name
        for name, layer in temporal.items()
        # Called a second time for a condition, a layer has no one output per step.
        if layer.inputs == alone
        and (name in elsewhere or any(met != alone for _, met in trace.meetings.get(name, ())))
    )
    read = frozenset[str]().union(*(layer.sources for layer in temporal.values()))

    def in_mlp(layer: LayerTrace) -> bool:
        # When the features are tabulated, the time MLP is dropped. A layer behind the condition
        # is still needed then, whoever reads it.
        return layer.name in read and (layer.inputs == alone or not features)

    return Temporal(
        mlp=tuple(name for name, layer in temporal.items() if in_mlp(layer)),
        projections=tuple(name for name, layer in temporal.items() if not in_mlp(layer)),
        features=features,
    )


def role_of(
    name: str, trace: NetworkTrace, temporal: Temporal, modules: Mapping[str, nn.Module]
) -> api.Role:
    """The role of the layer called `name`; `modules` are the network's by name."""
    layer = trace.layers[name]
    from_state = trace.state in layer.inputs
    before = [trace.layers[source].inputs for source in layer.sources]
    if name in trace.last:
        return "output"
    if from_state and not any(trace.state in inputs for inputs in before):
        return "input"
    if name in temporal.mlp:
        return "time-mlp"
    if name in temporal.projections:
        return "time-projection"
    around = _around(name, modules)
    if _in_attention(name, modules):
        return "attention"
    if any(isinstance(module, FeedForward) for module in around):
        return "feed-forward"
    if layer.inputs and not from_state and trace.time not in layer.inputs:
        return "condition"
    for module in reversed(around):
        if isinstance(module, Transformer2DModel):
            return "attention"  # into and out of a stack of transformer blocks
        if isinstance(module, RESAMPLE):
            return "resample"
        if isinstance(module, RESIDUAL):
            return "shortcut" if module.conv_shortcut is modules[name] else "conv"
    return "other"


def _around(name: str, modules: Mapping[str, nn.Module]) -> list[nn.Module]:
    """The modules that hold a layer, outermost first, without the network itself."""
    parts = name.split(".")
    return [modules[".".join(parts[:count])] for count in range(1, len(parts))]


def _in_attention(name: str, modules: Mapping[str, nn.Module]) -> bool:
    return any(hasattr(module, query) for module in _around(name, modules) for query in QUERIES)
