"""What quantizers and backends may know of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Block",
    "Layer",
    "LayerKind",
    "Role",
    "Topology",
]

LayerKind = Literal["conv2d", "linear"]

Role = Literal[
    "input",
    "output",
    "time-mlp",
    "time-projection",
    "condition",
    "conv",
    "shortcut",
    "resample",
    "attention",
    "feed-forward",
    "other",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One quantizable layer of a network, in execution order.

    Args:
        name: its name in `network.named_modules()`.
        role: what it is for; policies go by role, never by index or substring.
        block: name of the block that holds it.
        weight_shape: `(C_out, C_in/groups, kh, kw)` or `(C_out, C_in)`.
        macs: multiply-accumulates of one call for one image.
        split: input channels of the first half when its input is a concatenation, else None.
    """

    name: str
    kind: LayerKind
    role: Role
    block: str
    weight_shape: tuple[int, ...]
    macs: int
    split: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One reconstruction unit: a residual, attention or transformer block, or a lone layer."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What quantizers and backends may know of a network, everything in execution order.

    Args:
        blocks: reconstruction units; every layer belongs to exactly one.
        time_mlp: layers of `h(t)`; empty when the network has no temporal module. Several chains
            when blocks have embedders of their own (DiT).
        time_projections: the layers `Linear_i` of `g_i`, one per block that takes the time. What
            they give may depend on the condition as well (SDXL, DiT).
        time_features: the layers whose output depends on the timestep alone and is read by
            something that does not: what can be tabulated. The time projections, or, where a
            condition is added before them, the last layers of the time MLP.
        attention: modules whose inner products can be quantized, see
            `tfq_bench.quant.lower.attention.is_attention`.
    """

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    time_mlp: tuple[str, ...] = ()
    time_projections: tuple[str, ...] = ()
    time_features: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()

    def layer(self, name: str) -> Layer:
        """The layer called `name`; KeyError when there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)
