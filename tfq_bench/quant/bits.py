"""Codes at their true width, and where a model's bytes and multiply-accumulates go.

A packed tensor is one little-endian bit stream: code `i` occupies bits `i*b` to `i*b + b - 1`, and
bit `k` of the stream is bit `k % 8` of byte `k // 8`. So two 4-bit codes share a byte, low nibble
first, and four 6-bit codes take three bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tfq_bench.border import FULL_PRECISION
from tfq_bench.errors import QuantizationError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.border import Topology
    from tfq_bench.quant.state import QuantizedState

__all__ = ["BitReport", "bit_report", "pack", "packed_size", "unpack"]

CHUNK_WORDS = 2**18
"""Groups of codes that are packed or unpacked at once, so that temporaries stay small."""
HALF_BITS = 16
REMAINDER = "remainder"
CACHE = "temporal-cache"
ATTENTION = "attention-tables"


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take when packed."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 `[packed_size(n, bits)]`, the n codes as a little-endian bit stream.

    Args:
        codes: uint8 of any shape, read in row-major order, each in [0, 2^bits - 1].
        bits: 2 to 8.

    Raises:
        QuantizationError: `bits` out of range, another dtype, or a code that does not fit.
    """
    _check_bits(bits)
    if codes.dtype != torch.uint8:
        raise QuantizationError(f"codes must be uint8 to be packed, found {codes.dtype}.")
    if codes.numel() and int(codes.max()) >= 1 << bits:
        raise QuantizationError(
            f"codes of {bits} bits must be at most {(1 << bits) - 1}, found {int(codes.max())}."
        )
    flat = codes.contiguous().reshape(-1)
    if bits == 8:
        return flat.clone()
    group, width = _group(bits)
    words = -(-flat.numel() // group)
    padded = torch.zeros(words * group, dtype=torch.uint8, device=flat.device)
    padded[: flat.numel()] = flat
    packed = torch.empty((words, width), dtype=torch.uint8, device=flat.device)
    columns = padded.reshape(words, group)
    for start in range(0, words, CHUNK_WORDS):
        some, target = columns[start : start + CHUNK_WORDS], packed[start : start + CHUNK_WORDS]
        word = some[:, 0].to(_word(width))
        for column in range(1, group):
            word |= some[:, column].to(word.dtype) << (bits * column)
        for byte in range(width):
            target[:, byte] = (word >> (8 * byte)) & 0xFF
    return packed.reshape(-1)[: packed_size(flat.numel(), bits)].clone()


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """uint8 codes of `shape`, the inverse of `pack`.

    Args:
        packed: uint8 1-D as `pack` returned it.

    Raises:
        QuantizationError: `bits` out of range, or `packed` has not the length that `shape` needs.
    """
    _check_bits(bits)
    count = math.prod(shape)
    expected = packed_size(count, bits)
    if packed.dtype != torch.uint8 or packed.shape != (expected,):
        raise QuantizationError(
            f"{count} codes of {bits} bits need {expected} bytes of uint8, found "
            f"{tuple(packed.shape)} of {packed.dtype}."
        )
    if bits == 8:
        return packed.reshape(shape).clone()
    group, width = _group(bits)
    words = -(-count // group)
    padded = torch.zeros(words * width, dtype=torch.uint8, device=packed.device)
    padded[:expected] = packed
    codes = torch.empty((words, group), dtype=torch.uint8, device=packed.device)
    columns = padded.reshape(words, width)
    for start in range(0, words, CHUNK_WORDS):
        some, target = columns[start : start + CHUNK_WORDS], codes[start : start + CHUNK_WORDS]
        word = some[:, 0].to(_word(width))
        for byte in range(1, width):
            word |= some[:, byte].to(word.dtype) << (8 * byte)
        for column in range(group):
            target[:, column] = (word >> (bits * column)) & ((1 << bits) - 1)
    return codes.reshape(-1)[:count].reshape(shape)


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise QuantizationError(f"codes have 2 to 8 bits, found {bits}.")


def _word(width: int) -> torch.dtype:
    """What holds a group of `width` bytes; the longest, eight 7-bit codes, has 56 bits."""
    return torch.uint8 if width == 1 else torch.int64


def _group(bits: int) -> tuple[int, int]:
    """The smallest number of codes that fills whole bytes, and how many bytes those are."""
    common = math.gcd(bits, 8)
    return 8 // common, bits // common


@dataclass(frozen=True, slots=True, kw_only=True)
class BitReport:
    """What a quantized model really weighs and computes with.

    Args:
        mean_weight_bits: mean over the weights of all convolutions and linear layers that are
            kept; an exempt layer counts the network's own bits, or 16 in float16. Scales, biases,
            norms and caches are not weights here.
        packed_bytes: of the state as stored: codes at their true width, scales, zero points,
            activation tables, biases, caches.
        fp_bytes: of everything else (norms, embeddings, exempt layers with their biases) at the
            network's own bytes a parameter, 2 in float16 layers.
        bytes_by_role: bytes by layer role, under `temporal-cache` those of caches, under
            `attention-tables` those of quantized attention, and under `remainder` what belongs to
            no layer; the values sum to `total_bytes`.
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
    dropped = frozenset() if state is None else state.dropped(topology)
    everything = sum(parameter.nbytes for parameter in network.parameters())
    in_layers = 0
    packed = 0
    bits = weights = 0
    by_role: dict[str, int] = {}
    macs: dict[tuple[int, int], int] = {}
    for layer in topology.layers:
        module = network.get_submodule(layer.name)
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
