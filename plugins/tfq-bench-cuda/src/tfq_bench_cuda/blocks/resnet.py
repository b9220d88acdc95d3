"""`ResnetBlock2D`: norms end in codes, the time embedding and the residual in the convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable, kernel_layer
from tfq_bench_cuda.blocks.pixels import as_images, as_pixels, group_norm, norm_codes
from tfq_bench_cuda.kernels.norms import row_codes
from tfq_bench_cuda.kernels.operands import NOTHING, Additions
from tfq_bench_cuda.kernels.specs import Ending
from tfq_bench_cuda.layers import CudaConv2d
from tfq_bench_cuda.parts import dtype_name

__all__ = ["FusedResnet"]


class FusedResnet(FusedBlock):
    """Two convolutions of codes that group norms give, and a shortcut if the width changes.

    The time projection is called as the module that it is: a kernel, a cache or a simulation.

    Raises:
        Unfusable: the block changes the resolution, scales its output or the norm by the time, or
            a convolution has no kernel.
    """

    def __init__(self, name: str, block: Any) -> None:
        _refuse(block)
        self.norm1, self.norm2 = group_norm(block, "norm1"), group_norm(block, "norm2")
        self.conv1 = kernel_layer(block, "conv1", CudaConv2d)
        self.conv2 = kernel_layer(block, "conv2", CudaConv2d)
        self.shortcut: CudaConv2d | None = None
        if block.conv_shortcut is not None:
            self.shortcut = kernel_layer(block, "conv_shortcut", CudaConv2d)
        self.projection: nn.Module | None = block.time_emb_proj
        layers = [self.conv1, self.conv2, self.shortcut]
        super().__init__(name, block, [layer for layer in layers if layer is not None])
        self.activates_time = not block.skip_time_act
        self.conv1.runs = self._first(self.conv1.runs.out)
        self.conv2.runs = _second(self.conv2.runs.out)

    def reads_both(self, x: Tensor, skip: Tensor, temb: Tensor | None) -> bool:
        """Whether `fused` can read an input and a skip connection without their concatenation."""
        alike = x.dtype == skip.dtype and x.shape[2:] == skip.shape[2:] and len(x) == len(skip)
        known = (temb is None) == (self.projection is None)
        return alike and known and self.shortcut is not None and not self.watched

    def fused(
        self,
        input_tensor: Tensor,
        temb: Tensor | None = None,
        *args: Any,
        skip: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """`[B, C_out, H, W]`, channels last in memory.

        Args:
            input_tensor: `[B, C_in, H, W]`.
            temb: `[B, features]`.
            skip: further channels of the input, where it `reads_both`.
        """
        if (temb is None) != (self.projection is None):
            single: Tensor = self._single(input_tensor, temb, *args, **kwargs)
            return single
        size = (input_tensor.shape[2], input_tensor.shape[3])
        dtype = dtype_name(input_tensor.dtype)
        x = as_pixels(input_tensor)
        beside = None if skip is None else as_pixels(skip)
        (codes,) = norm_codes(self.norm1, x, [self.conv1], silu=True, beside=beside)
        inner = self.conv1.product(codes, self._first(dtype), self._shift(temb), size=size)
        inner = inner.view(len(x), -1, inner.shape[-1])
        (codes,) = norm_codes(self.norm2, inner, [self.conv2], silu=True)
        residual = Additions(residual=self._shortcut(x, beside, dtype))
        return as_images(self.conv2.product(codes, _second(dtype), residual, size=size), size)

    def _first(self, dtype: str) -> Ending:
        return Ending(shift=self.projection is not None, out=dtype)

    def _shift(self, temb: Tensor | None) -> Additions:
        """What the time adds to every pixel, `[B, C_out]`."""
        if temb is None or self.projection is None:
            return NOTHING
        active = nn.functional.silu(temb) if self.activates_time else temb
        return Additions(shift=self.projection(active).float().contiguous())

    def _shortcut(self, x: Tensor, beside: Tensor | None, dtype: str) -> Tensor:
        """`[M, C_out]` of `[B, P, C_in]`, which may lie in two tensors."""
        rows = x.flatten(0, 1)
        if self.shortcut is None:
            return rows
        codes = row_codes(
            rows,
            step=self.shortcut.step.index,
            tables=self.shortcut.tables,
            beside=None if beside is None else beside.flatten(0, 1),
        )
        return self.shortcut.product(codes, Ending(out=dtype))


def _second(dtype: str) -> Ending:
    return Ending(residual=dtype, out=dtype)


def _refuse(block: Any) -> None:
    """Nothing, when the block is built as the pass computes it."""
    if block.upsample is not None or block.downsample is not None:
        raise Unfusable("changes the resolution between norm and convolution")
    if block.time_embedding_norm != "default":
        raise Unfusable(f"time embedding '{block.time_embedding_norm}' instead of an added one")
    if type(block.nonlinearity) is not nn.SiLU:
        raise Unfusable(f"activation {type(block.nonlinearity).__name__} instead of SiLU")
    if block.output_scale_factor != 1:
        raise Unfusable(f"divides its output by {block.output_scale_factor}")
    if block.dropout.training and block.dropout.p > 0:
        raise Unfusable("drops values out, as a network in training does")
