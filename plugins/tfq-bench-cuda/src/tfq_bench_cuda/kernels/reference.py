"""The arithmetic of the kernels in plain torch, on any device. Slow, and right to the last bit.

Codes are signed on the GPU: `c = q - 128` for the unsigned code `q` of `tfq_bench.quant`, so the
zero point becomes `z - 128`. With int8 weights `w`,

    c = clamp(round(x * (1/s_t)) + z_t, 0, 2^b - 1) - 128
    y = float(sum c*w - (z_t - 128) * sum_in w) * s_t * s_w + bias (+ residual)

where t is the sampler step; everything before `float` is an integer, everything after it rounds in
float32 and in this order, which is that of `tfq_bench.quant.lower.simulate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, ProductSpec, QuantizeSpec

__all__ = ["ReferenceKernels", "at_step"]


def at_step(table: Tensor, step: Tensor) -> Tensor:
    """The entry `[1]` of a table `[T]` or `[1]` at the step `[1]`."""
    return table if len(table) == 1 else table.index_select(0, step)


class ReferenceKernels:
    """The calls of `tfq_bench_cuda.kernels.runtime.Kernels`, computed by torch."""

    gathers = False
    """As on Hopper: the copy engine reads the pixels where it can."""

    def prepare(self, specs: object) -> None:
        """Nothing: there is nothing to compile."""

    def name(self, spec: ProductSpec) -> str:
        """Of the kernel that a spec stands for."""
        return f"torch s8 {spec.kind} {spec.tile}"

    def quantize(
        self, spec: QuantizeSpec, x: Tensor, step: Tensor, inverse: Tensor, zero_point: Tensor
    ) -> Tensor:
        """int8 codes with channels last, see `QuantizeSpec`.

        Args:
            step: int64 `[1]`.
            inverse: float32 `[T]` or `[1]`, 1 over the scale. zero_point: int32, same shape.
        """
        piece = x.narrow(1, spec.start, spec.channels).float()
        code = piece.mul(at_step(inverse, step)).round_().add_(at_step(zero_point, step))
        code = code.clamp_(0, 2**spec.bits - 1).sub_(128).to(torch.int8)
        if spec.planes:
            code = code.transpose(1, 2)
        return F.pad(code, (0, spec.padded - spec.channels)).contiguous()

    def linear(
        self,
        spec: LinearSpec,
        code: Tensor,
        weight: Tensor,
        sums: Tensor,
        step: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        weight_scale: Tensor,
        bias: Tensor,
        residual: Tensor | None,
    ) -> Tensor:
        """`[M, n]` of codes `[M, k]` and int8 weights `[n, k]`.

        Args:
            sums: int32 `[n]`, sums of the weights.
            scale: float32 `[T]` or `[1]`. weight_scale, bias: float32 `[n]`.
        """
        total = code.double() @ weight.double().T
        total = total - (at_step(zero_point, step) - 128) * sums.double()
        return _finish(spec, total, at_step(scale, step), weight_scale, bias, residual)

    def conv2d(
        self,
        spec: ConvSpec,
        code: Tensor,
        weight: Tensor,
        sums: Tensor,
        positions: Tensor,
        step: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        weight_scale: Tensor,
        bias: Tensor,
        residual: Tensor | None,
    ) -> Tensor:
        """`[B * out_h * out_w, n]` of codes `[B, H, W, c]` and weights `[n, kh * kw * c]`.

        Args:
            sums, positions: of `tfq_bench_cuda.kernels.borders`. The others: as for `linear`.
        """
        geometry = spec.geometry
        taps = weight.view(spec.n, *geometry.kernel, spec.c).permute(0, 3, 1, 2)
        total = F.conv2d(
            code.permute(0, 3, 1, 2).double(),
            taps.double(),
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
        )
        total = total.permute(0, 2, 3, 1)
        classes = positions[:, 2].long().view(total.shape[1:3])
        total = total - (at_step(zero_point, step) - 128) * sums.double()[classes]
        total = total.reshape(-1, spec.n)
        return _finish(spec, total, at_step(scale, step), weight_scale, bias, residual)


def _finish(
    spec: ProductSpec,
    total: Tensor,
    scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
) -> Tensor:
    """The epilogue; `total` holds integers, in float64."""
    y = total.float().mul_(scale).mul_(weight_scale).add_(bias)
    if residual is not None:
        y = y.add_(residual)
    return y.to(getattr(torch, spec.out))
