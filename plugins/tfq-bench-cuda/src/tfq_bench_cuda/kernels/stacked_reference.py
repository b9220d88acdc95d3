"""Linear layers side by side in plain torch: what the Triton kernel of `stacked` computes.

    c = clamp(round(x * (1/s_t)) + z_t, 0, 2^b - 1) - 128, of SiLU(x) in x's type where asked
    y = float(sum c*w - (z_t - 128) * sum w) * s_t * s_w + bias

as `reference` says it of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench_cuda.kernels.reference import codes
from tfq_bench_cuda.kernels.unpack import expand_reference

__all__ = ["Stack", "stacked_reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """L linear layers, one along the first dimension of each tensor.

    Args:
        weight: int8 `[L, n, k]`, k a multiple of 32; or packed uint8 `[L, n, k / 2]`, see `unpack`.
        sums: int32 `[L, n]`, sums of the weights.
        weight_scale, bias: float32 `[L, n]`.
        scale, inverse: float32 `[L, T]`, of the codes of a layer's input, and 1 over them.
        zero_point: int32, same shape.
        channels: of the input, at most k; weights beyond are 0.
        bits: of its codes, 2 to 8.
    """

    weight: Tensor
    sums: Tensor
    weight_scale: Tensor
    bias: Tensor
    scale: Tensor
    inverse: Tensor
    zero_point: Tensor
    channels: int
    bits: int

    @property
    def packed(self) -> bool:
        """Whether a byte holds two weights."""
        return self.weight.dtype == torch.uint8

    @property
    def k(self) -> int:
        """Inputs, filled up."""
        return self.weight.shape[2] * (2 if self.packed else 1)


def stacked_reference(
    x: Tensor, stack: Stack, step: Tensor, *, silu: bool, out: torch.dtype, pieces: int = 1
) -> Tensor:
    """See `stacked.stacked_linear`; sums are float64 and exact."""
    layers, n = stack.sums.shape
    now = step.clamp(max=stack.scale.shape[1] - 1)
    scale, inverse, zero_point = (
        table.index_select(1, now)[:, :, None]
        for table in (stack.scale, stack.inverse, stack.zero_point)
    )
    code = codes((F.silu(x) if silu else x).float(), inverse, zero_point, stack.bits)
    code = F.pad(code, (0, stack.k - stack.channels))
    weight = stack.weight
    if stack.packed:
        weight = expand_reference(weight.flatten(0, 1)).view(layers, n, -1)
    total = code.double() @ weight.double().transpose(1, 2)
    total = total - (zero_point - 128) * stack.sums.double()[:, None]
    y = total.float().mul_(scale).mul_(stack.weight_scale[:, None]).add_(stack.bias[:, None])
    return y.to(out).view(layers, -1, pieces, n // pieces).transpose(1, 2).contiguous()
