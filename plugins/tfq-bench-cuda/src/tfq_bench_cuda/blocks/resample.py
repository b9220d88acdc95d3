"""`Upsample2D` and `Downsample2D`: what they do to pixels, done to codes or to no copy at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable, kernel_layer
from tfq_bench_cuda.blocks.pixels import as_images
from tfq_bench_cuda.kernels.specs import Ending
from tfq_bench_cuda.layers import CudaConv2d
from tfq_bench_cuda.parts import dtype_name

__all__ = ["FusedDownsample", "FusedUpsample"]


class FusedUpsample(FusedBlock):
    """Quantizes pixels before they are doubled: a quarter of them, and bytes are copied."""

    def __init__(self, name: str, block: Any) -> None:
        if not block.use_conv or block.use_conv_transpose or not block.interpolate:
            raise Unfusable("is not a nearest neighbour before a convolution")
        _refuse_norm(block)
        self.conv = kernel_layer(block, "conv" if block.name == "conv" else "Conv2d_0", CudaConv2d)
        super().__init__(name, block, [self.conv])

    def fused(
        self,
        hidden_states: Tensor,
        output_size: Sequence[int] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """`[B, C_out, 2 H, 2 W]`, channels last in memory; another size goes layer by layer."""
        images, _, height, width = hidden_states.shape
        size = (2 * height, 2 * width)
        if output_size is not None and tuple(output_size) != size:
            single: Tensor = self._single(hidden_states, output_size, *args, **kwargs)
            return single
        codes = [
            _doubled(code.view(images, height, width, -1))
            for code in self.conv.image_codes(hidden_states)
        ]
        ending = Ending(out=dtype_name(hidden_states.dtype))
        y = self.conv.product(codes, ending, size=size)
        return as_images(y, self.conv.geometry.output(size))


class FusedDownsample(FusedBlock):
    """The row and column of zeros that diffusers appends are not written, but known to the kernel.

    That is of use where the block pads; where the convolution does, it is all there is.
    """

    def __init__(self, name: str, block: Any) -> None:
        if not block.use_conv or block.padding != 0:
            raise Unfusable("is one layer and nothing else, so there is nothing to fuse")
        _refuse_norm(block)
        conv = kernel_layer(block, "conv", CudaConv2d)
        self.conv = conv.with_geometry(replace(conv.geometry, beyond=(1, 1)))
        conv.formed_by = self.conv.specs
        super().__init__(name, block, [conv])

    def fused(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """`[B, C_out, H', W']`, channels last in memory."""
        size = (hidden_states.shape[2], hidden_states.shape[3])
        codes = self.conv.image_codes(hidden_states)
        y = self.conv.product(codes, Ending(out=dtype_name(hidden_states.dtype)), size=size)
        return as_images(y, self.conv.geometry.output(size))


def _refuse_norm(block: Any) -> None:
    if block.norm is not None:
        raise Unfusable("normalizes before it resamples")


def _doubled(code: Tensor) -> Tensor:
    """`[B, 2 H, 2 W, C]` of int8 `[B, H, W, C]`: each pixel four times, eight bytes at a time."""
    images, height, width, _ = code.shape
    wide = code.view(torch.int64)[:, :, None, :, None]
    wide = wide.expand(images, height, 2, width, 2, wide.shape[-1])
    return wide.reshape(images, 2 * height, 2 * width, -1).view(torch.int8)
