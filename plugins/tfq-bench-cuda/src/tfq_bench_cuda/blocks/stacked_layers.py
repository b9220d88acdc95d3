"""Layers of one shape in several blocks, run as one kernel; see `kernels.stacked`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import kernel_layer, needs
from tfq_bench_cuda.kernels.stacked import Stack, check_stacked, stacked_linear
from tfq_bench_cuda.layers import CudaLinear
from tfq_bench_cuda.parts import Part
from tfq_bench_cuda.weights import join

__all__ = ["StackedLayers", "stackable"]


def stackable(blocks: Sequence[nn.Module], path: str) -> list[CudaLinear]:
    """The layer at a path of each block.

    Raises:
        Unfusable: one has no int8 kernel, or they differ in shape or in the bits of their input.
    """
    layers = [kernel_layer(block, path, CudaLinear) for block in blocks]
    parts = [cast(Part, layer.parts[0]) for layer in layers]
    needs(
        all(len(layer.parts) == 1 for layer in layers), f"layer '{path}' reads its input in parts"
    )
    kinds = {(part.stored.shape, part.channels, part.bits) for part in parts}
    needs(len(kinds) == 1, f"layers '{path}' have other shapes or bits in other blocks")
    return layers


class StackedLayers:
    """Calls `stacked_linear`; the layers' weights become views of the stack's.

    Args:
        layers: that are `stackable`.
        dtype: of the input, and of the result unless `out` says another.
        shared: whether all read one input. silu, pieces: of `stacked_linear`.

    Raises:
        LoweringError: the kernel is not exact on this machine.
    """

    def __init__(
        self,
        layers: Sequence[CudaLinear],
        dtype: torch.dtype,
        *,
        shared: bool = False,
        silu: bool = False,
        out: torch.dtype | None = None,
        pieces: int = 1,
    ) -> None:
        self.layers = tuple(layers)
        self._way: dict[str, Any] = {"silu": silu, "out": out or dtype, "pieces": pieces}
        parts = [cast(Part, layer.parts[0]) for layer in layers]
        rows = parts[0].stored.shape[0]
        weight = join([part.stored for part in parts], read=False)
        for number, part in enumerate(parts):
            part.stored = weight.rows(number * rows, (number + 1) * rows)
        steps = max(len(part.scale) for part in parts)
        tables = {
            name: torch.stack([getattr(part, name).expand(steps) for part in parts])
            for name in ("scale", "inverse", "zero_point")
        }
        channels = {
            name: torch.stack([getattr(part, name) for part in parts])
            for name in ("sums", "weight_scale", "bias")
        }
        self.stack = Stack(
            weight=weight.stored.view(len(parts), rows, -1),
            channels=parts[0].channels,
            bits=parts[0].bits,
            **tables,
            **channels,
        )
        cuda = self.stack.sums.is_cuda
        for layer in layers:
            layer.named = f"{'triton' if cuda else 'torch'} s8 stacked linear"
        if cuda:
            check_stacked(self.stack, dtype, shared=shared, **self._way)

    def __call__(self, x: Tensor) -> Tensor:
        """`[L, pieces, M, n / pieces]` of `[L, M, channels]`, where shared of one layer's."""
        for layer in self.layers:
            layer.executed[layer.named] = layer.executed.get(layer.named, 0) + 1
        step = self.layers[0].step.index
        return stacked_linear(x.contiguous(), self.stack, step, **self._way)
