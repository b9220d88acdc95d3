"""Time projections whose output is looked up instead of computed (arXiv:2407.19547).

A time projection's output depends on the timestep only, and a sampler visits finitely many: so it
can be computed once in full precision, quantized itself, and stored. A projection that is looked
up at every step is never computed, and when all are, nor is the time MLP that feeds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.state.affine import dequantize
from tfq_bench.quant.state.packing import packed_size

if TYPE_CHECKING:
    from tfq_bench.types import Topology
    from tfq_bench.types.networks import StepCursor

__all__ = ["CACHE_BITS", "CachedProjection", "SkippedLayer", "TemporalCache", "unused_layers"]

HALF = 16
CACHE_BITS = (2, 3, 4, 5, 6, 7, 8, HALF)
"""Bit widths of a cache: codes of 2 to 8 bits, or float16."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemporalCache:
    """The quantized output of one time projection, bias included, at every sampler step.

    Row k is read at step k where `selected[k]`; at the other steps the layer itself is computed.

    Args:
        name: the projection's name in `network.named_modules()`.
        bits: 2 to 8, or 16 for float16.
        values: uint8 codes `[T, C]`, or float16 `[T, C]` when `bits` is 16.
        scale: float32 `[T, 1]`, `[1, 1]`, `[T, C]` or `[1, C]`, positive; None when `bits` is 16.
        zero_point: int32 in [0, 2^bits - 1], same shape; None when `bits` is 16.
        selected: bool `[T]`, at least one of them true. Rows that are not selected are not
            stored on disk and come back as zeros.

    Raises:
        QuantizationError: a tensor that breaks these rules.
    """

    name: str
    bits: int
    values: Tensor
    scale: Tensor | None
    zero_point: Tensor | None
    selected: Tensor

    def __post_init__(self) -> None:
        where = f"cache of '{self.name}'"
        if self.bits not in CACHE_BITS:
            raise QuantizationError(f"{where}: expected 2 to 8 or {HALF} bits, found {self.bits}.")
        dtype = torch.float16 if self.bits == HALF else torch.uint8
        if self.values.dtype != dtype or self.values.dim() != 2 or self.values.numel() == 0:
            raise QuantizationError(
                f"{where}: values of {self.bits} bits must be {dtype} [T, C], found "
                f"{self.values.dtype} of shape {tuple(self.values.shape)}."
            )
        if self.selected.dtype != torch.bool or self.selected.shape != self.values.shape[:1]:
            raise QuantizationError(
                f"{where}: `selected` must be bool [{len(self.values)}], found "
                f"{self.selected.dtype} of shape {tuple(self.selected.shape)}."
            )
        if not bool(self.selected.any()):
            raise QuantizationError(f"{where}: no step is selected; leave the cache out.")
        if self.bits == HALF:
            self._check_half(where)
        else:
            self._check_codes(where)

    def _check_half(self, where: str) -> None:
        if self.scale is not None or self.zero_point is not None:
            raise QuantizationError(f"{where}: float16 values have no scale and no zero point.")
        if not bool(torch.isfinite(self.values).all()):
            raise QuantizationError(f"{where}: float16 values must be finite.")

    def _check_codes(self, where: str) -> None:
        scale, zero_point, top = self.scale, self.zero_point, (1 << self.bits) - 1
        steps, channels = self.values.shape
        allowed = {(steps, 1), (1, 1), (steps, channels), (1, channels)}
        if (
            scale is None
            or zero_point is None
            or scale.dtype != torch.float32
            or zero_point.dtype != torch.int32
            or tuple(scale.shape) not in allowed
            or scale.shape != zero_point.shape
        ):
            raise QuantizationError(
                f"{where}: scale (float32) and zero point (int32) must have one of the shapes "
                f"{sorted(allowed)}, found {_described(scale)} and {_described(zero_point)}."
            )
        if not bool(torch.isfinite(scale).all()) or float(scale.min()) <= 0.0:
            raise QuantizationError(f"{where}: scales must be finite and positive.")
        low, high = int(zero_point.min()), max(int(zero_point.max()), int(self.values.max()))
        if low < 0 or high > top:
            raise QuantizationError(
                f"{where}: codes and zero points of {self.bits} bits lie in [0, {top}], found "
                f"{high if high > top else low}."
            )

    @property
    def complete(self) -> bool:
        """Whether every step is selected, so that the layer is never computed."""
        return bool(self.selected.all())

    @property
    def packed_bytes(self) -> int:
        """Bytes as stored: selected rows packed, 4 a scale, 1 a zero point, 1 bit a step."""
        steps, channels = self.values.shape
        rows = int(self.selected.sum())
        size = packed_size(rows * channels, self.bits) + packed_size(steps, 1)
        if self.scale is not None:
            size += 5 * (rows if len(self.scale) == steps else 1) * self.scale.shape[1]
        return size

    def dequantized(self) -> Tensor:
        """float32 `[T, C]`, every row, also those that are not selected."""
        if self.scale is None or self.zero_point is None:
            return self.values.float()
        return dequantize(self.values, self.scale, self.zero_point)


class CachedProjection(nn.Module):
    """A time projection that looks its output up; `simulate` and every backend use this one.

    Args:
        inner: what computes the layer at the steps that are not selected, None when all are.
        step: where the table is read; its index may be one for the batch (`[1]`) or one per
            sample (`[B]`).

    Raises:
        QuantizationError: a step is not selected and there is no `inner`.
    """

    table: Tensor
    selected: Tensor

    def __init__(self, cache: TemporalCache, inner: nn.Module | None, step: StepCursor) -> None:
        super().__init__()
        if inner is None and not cache.complete:
            raise QuantizationError(
                f"cache of '{cache.name}' covers {int(cache.selected.sum())} of "
                f"{len(cache.selected)} steps; the others need the layer itself."
            )
        device = step.index.device
        self.register_buffer("table", cache.dequantized().to(device), persistent=False)
        self.register_buffer("selected", cache.selected.to(device), persistent=False)
        self.inner = None if cache.complete else inner
        self._step = step

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C]` for an input `[B, ...]`, in x's dtype; reads the step on the device only."""
        index = self._step.index
        row = self.table.index_select(0, index).to(x.dtype)
        row = row.expand(x.shape[0], -1)
        if self.inner is None:
            return row
        # Both are computed: a branch would read the step on the host, which a captured CUDA
        # graph would not see change, and samples of one batch may be at different steps.
        chosen = self.selected.index_select(0, index)[:, None]
        return torch.where(chosen, row, self.inner(x))


class SkippedLayer(nn.Module):
    """Stands where a layer of the time MLP was that nothing reads any more; computes nothing.

    Args:
        features: the size of the last dimension of its output, which is all zeros.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Zeros `[..., features]`, one value in memory."""
        return x.new_zeros(()).expand(*x.shape[:-1], self.features)


def unused_layers(topology: Topology, cache: Mapping[str, TemporalCache]) -> frozenset[str]:
    """The layers that are never computed, so that a state need not hold them.

    These are the layers cached at every step and, when all time features are, the time MLP.
    """
    complete = {name for name in topology.time_features if name in cache and cache[name].complete}
    if complete and len(complete) == len(topology.time_features):
        complete.update(topology.time_mlp)
    return frozenset(complete)


def _described(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
