"""The arithmetic of the kernels in plain torch, on any device. Slow, and right to the last bit.

Codes are signed on the GPU: `c = q - 128` for the unsigned code `q` of `tfq_bench.quant`, so the
zero point becomes `z - 128`. With int8 weights `w`,

    c = clamp(round(x * (1/s_t)) + z_t, 0, 2^b - 1) - 128
    y = float(sum c*w - (z_t - 128) * sum_in w) * s_t * s_w + bias

where t is the sampler step; everything before `float` is an integer, everything after it rounds in
float32 and in this order, which is that of `tfq_bench.quant.lower.simulate`. What follows is said
by `specs.Ending`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench_cuda.kernels.operands import NOTHING, Additions, Factors

if TYPE_CHECKING:
    from tfq_bench_cuda.kernels.specs import (
        ConvSpec,
        Ending,
        LinearSpec,
        ProductSpec,
        QuantizeSpec,
    )

__all__ = ["ReferenceKernels", "at_step", "codes"]


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
        code = codes(piece, at_step(inverse, step), at_step(zero_point, step), spec.bits)
        if spec.planes:
            code = code.transpose(1, 2)
        return F.pad(code, (0, spec.padded - spec.channels)).contiguous()

    def linear(
        self, spec: LinearSpec, code: Tensor, factors: Factors, additions: Additions = NOTHING
    ) -> Tensor:
        """`[M, n]` of codes `[M, k]`."""
        total = code.double() @ factors.weight.double().T
        total = total - (at_step(factors.zero_point, factors.step) - 128) * factors.sums.double()
        return _finish(spec.ending, total, factors, additions)

    def conv2d(
        self, spec: ConvSpec, code: Tensor, factors: Factors, additions: Additions = NOTHING
    ) -> Tensor:
        """`[B * out_h * out_w, n]` of codes `[B, H, W, c]`."""
        geometry = spec.geometry
        assert factors.positions is not None
        taps = factors.weight.view(spec.n, *geometry.kernel, spec.c).permute(0, 3, 1, 2)
        below, right = geometry.beyond
        total = F.conv2d(
            F.pad(code.permute(0, 3, 1, 2).double(), (0, right, 0, below)),
            taps.double(),
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
        )
        total = total.permute(0, 2, 3, 1)
        classes = factors.positions[:, 2].long().view(total.shape[1:3])
        zero_point = at_step(factors.zero_point, factors.step) - 128
        total = total - zero_point * factors.sums.double()[classes]
        return _finish(spec.ending, total.reshape(-1, spec.n), factors, additions)


def _finish(ending: Ending, total: Tensor, factors: Factors, additions: Additions) -> Tensor:
    """The epilogue; `total` holds integers, in float64."""
    y = total.float().mul_(at_step(factors.scale, factors.step))
    y = y.mul_(factors.weight_scale).add_(factors.bias)
    if ending.partial:
        y = y.add_(_given(additions.partial))
    if ending.shift:
        y = y.add_(_rows(_given(additions.shift), len(y)))
    y = _activated(ending.activation, y)
    if ending.gate:
        y = y.mul_(_rows(_given(additions.gate), len(y)))
    if ending.residual:
        y = y.add_(_given(additions.residual).float())
    if ending.out != "int8":
        return y.to(getattr(torch, ending.out))
    inverse = at_step(_given(additions.inverse), factors.step)
    zero_point = at_step(_given(additions.zero_point), factors.step)
    return codes(y, inverse, zero_point, ending.bits)


def codes(x: Tensor, inverse: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """int8, shape of x: the codes of float32 values."""
    return x.mul(inverse).round_().add_(zero_point).clamp_(0, 2**bits - 1).sub_(128).to(torch.int8)


def _activated(activation: str, y: Tensor) -> Tensor:
    if activation == "geglu":
        value, gate = y.chunk(2, dim=1)
        return value * F.gelu(gate)
    if activation == "silu":
        return F.silu(y)
    if activation in ("gelu", "gelu-tanh"):
        return F.gelu(y, approximate="tanh" if activation == "gelu-tanh" else "none")
    return y


def _rows(values: Tensor, rows: int) -> Tensor:
    """`[rows, n]`: each image's line of `[images, n]` for all of its rows."""
    return values.repeat_interleave(rows // len(values), dim=0)


def _given(value: Tensor | None) -> Tensor:
    """The tensor, in the layout that a kernel needs: tests without a GPU are to find another."""
    assert value is not None, "the ending asks for a tensor that was not given"
    assert value.is_contiguous(), f"a kernel reads whole rows, found strides {value.stride()}"
    return value
