"""Where a model's bytes and multiply-accumulates go; every byte is counted once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfq_bench.quant.layers import find_layer
from tfq_bench.types import FULL_PRECISION

if TYPE_CHECKING:
    from torch import nn

    from tfq_bench.quant.state.quantized_state import QuantizedState
    from tfq_bench.types import Topology

__all__ = ["BitReport", "bit_report"]

HALF_BITS = 16
REMAINDER = "remainder"
CACHE = "temporal-cache"
ATTENTION = "attention-tables"
CORRECTION = "sampler-correction"


@dataclass(frozen=True, slots=True, kw_only=True)
class BitReport:
    """What a quantized model really weighs and computes with.

    Args:
        mean_weight_bits: mean over the weights of all convolutions and linear layers that are
            kept; an exempt layer counts the network's own bits, or 16 in float16. Scales, biases,
            norms and caches are not weights here.
        packed_bytes: of the state as stored: codes at their true width, scales, zero points,
            activation tables, biases, caches, the sampler's correction.
        fp_bytes: of everything else (norms, embeddings, exempt layers with the model's biases) at
            the network's own bytes a parameter, 2 in float16 layers.
        bytes_by_role: bytes by layer role, under `temporal-cache` those of caches, under
            `attention-tables` those of quantized attention, under `sampler-correction` those of
            what the sampler takes out, and under `remainder` what belongs to no layer; the values
            sum to `total_bytes`.
        exempt: layers that stay float, with the reason.
        mac_share: fraction of multiply-accumulates per (wbits, abits), summing to 1.
        cache_bytes: the part of `packed_bytes` that is caches of time projections.
        dropped: layers that are never computed because of the caches; they take no bytes.
    """

    mean_weight_bits: float
    packed_bytes: int
    fp_bytes: int
    bytes_by_role: Mapping[str, int]
    exempt: Mapping[str, str]
    mac_share: Mapping[tuple[int, int], float]
    cache_bytes: int = 0
    dropped: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole network."""
        return self.packed_bytes + self.fp_bytes


def bit_report(network: nn.Module, topology: Topology, state: QuantizedState | None) -> BitReport:
    """The bits, bytes and multiply-accumulates of a state; `None` is full precision.

    Args:
        network: the full-precision network that `topology` describes.
    """
    layers = {} if state is None else state.layers
    exempt = {} if state is None else dict(state.exempt)
    half = frozenset() if state is None else frozenset(state.half)
    biases = {} if state is None else state.biases
    dropped = frozenset() if state is None else state.dropped(topology)
    everything = sum(parameter.nbytes for parameter in network.parameters())
    in_layers = 0
    packed = 0
    bits = weights = 0
    by_role: dict[str, int] = {}
    macs: dict[tuple[int, int], int] = {}
    for layer in topology.layers:
        module = find_layer(network, layer.name)
        size = sum(parameter.nbytes for parameter in module.parameters())
        in_layers += size
        if layer.name in dropped:
            continue
        wbits = 8 * next(module.parameters()).element_size()
        abits = FULL_PRECISION
        if layer.name in layers:
            quantized = layers[layer.name]
            size = quantized.packed_bytes
            packed += size
            wbits, abits = quantized.wbits, quantized.abits
        elif layer.name in half:
            wbits = HALF_BITS
            size = sum(parameter.numel() for parameter in module.parameters()) * HALF_BITS // 8
        if layer.name in biases:
            stored = biases[layer.name].nbytes
            size += stored - (0 if module.bias is None else module.bias.numel() * wbits // 8)
            packed += stored
        count = math.prod(layer.weight_shape)
        bits += wbits * count
        weights += count
        by_role[layer.role] = by_role.get(layer.role, 0) + size
        macs[wbits, abits] = macs.get((wbits, abits), 0) + layer.macs
    by_role[REMAINDER] = everything - in_layers
    cached = 0 if state is None else sum(cache.packed_bytes for cache in state.cache.values())
    if cached:
        by_role[CACHE] = cached
        packed += cached
    if state is not None and state.attention:
        by_role[ATTENTION] = sum(tables.packed_bytes for tables in state.attention.values())
        packed += by_role[ATTENTION]
    if state is not None and state.correction is not None:
        by_role[CORRECTION] = state.correction.packed_bytes
        packed += by_role[CORRECTION]
    total = sum(macs.values())
    return BitReport(
        mean_weight_bits=bits / weights if weights else float(FULL_PRECISION),
        packed_bytes=packed,
        fp_bytes=sum(by_role.values()) - packed,
        bytes_by_role=dict(sorted(by_role.items())),
        exempt=exempt,
        mac_share={pair: share / total for pair, share in sorted(macs.items())} if total else {},
        cache_bytes=cached,
        dropped=tuple(layer.name for layer in topology.layers if layer.name in dropped),
    )
