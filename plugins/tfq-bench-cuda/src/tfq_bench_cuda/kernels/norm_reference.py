"""Normalization followed by quantization in plain torch: what the Triton kernels compute.

Everything is float32, whatever the input is in; nothing is rounded between the norm and its codes:

    y = (x - mean) / sqrt(var + eps) * weight + bias, then SiLU or y * (1 + scale) + shift
    c = clamp(round(y * (1/s_t)) + z_t, 0, 2^b - 1) - 128

The codes of a table are those of `tfq_bench_cuda.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench_cuda.kernels.reference import codes
from tfq_bench_cuda.kernels.specs import padded

__all__ = ["Table", "group_norm_codes", "layer_norm_codes", "row_codes"]


@dataclass(frozen=True, slots=True)
class Table:
    """How one reader of a tensor quantizes it: a layer, or one part of a split layer.

    Args:
        start, channels: the channels that it reads. The codes have `specs.padded(channels)`, and
            those added are 0.
        bits: of the codes, 2 to 8.
        inverse: float32 `[T]` or `[1]`, 1 over the scale at each sampler step.
        zero_point: int32, same shape.

    Raises:
        ValueError: other bits, or scales and zero points of other types or unequal shapes.
    """

    start: int
    channels: int
    bits: int
    inverse: Tensor
    zero_point: Tensor

    def __post_init__(self) -> None:
        """Checks what a kernel would take silently and get wrong."""
        if not 2 <= self.bits <= 8:
            raise ValueError(f"table: expected 2 to 8 bits, found {self.bits}")
        found = [(str(t.dtype), tuple(t.shape)) for t in (self.inverse, self.zero_point)]
        shape = tuple(self.inverse.shape)
        if len(shape) != 1 or found != [("torch.float32", shape), ("torch.int32", shape)]:
            raise ValueError(
                f"table: expected 1/scale float32 [T] and zero point int32 [T], found {found}"
            )


def group_norm_codes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool,
    step: Tensor,
    tables: Sequence[Table],
    beside: Tensor | None = None,
) -> list[Tensor]:
    """See `tfq_bench_cuda.kernels.norms.group_norm_codes`."""
    x = _joined(x, beside)
    images, pixels, channels = x.shape
    y = _normalized(x.float().view(images, pixels, groups, channels // groups), (1, 3), eps)
    y = y.view(x.shape).mul_(weight.float()).add_(bias.float())
    return row_codes(F.silu(y) if silu else y, step=step, tables=tables)


def layer_norm_codes(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    step: Tensor,
    tables: Sequence[Table],
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> list[Tensor]:
    """See `tfq_bench_cuda.kernels.norms.layer_norm_codes`."""
    y = _normalized(x.float(), (2,), eps)
    if weight is not None:
        y = y * weight.float()
    if bias is not None:
        y = y + bias.float()
    if scale is not None:
        y = y * (1 + scale.float())[:, None]
    if shift is not None:
        y = y + shift.float()[:, None]
    return row_codes(y, step=step, tables=tables)


def row_codes(
    x: Tensor, *, step: Tensor, tables: Sequence[Table], beside: Tensor | None = None
) -> list[Tensor]:
    """See `tfq_bench_cuda.kernels.norms.row_codes`; any number of dimensions before channels."""
    found = []
    x = _joined(x, beside)
    for table in tables:
        part = x.narrow(-1, table.start, table.channels).float()
        now = step.clamp(max=len(table.inverse) - 1)
        code = codes(part, table.inverse[now], table.zero_point[now], table.bits)
        found.append(F.pad(code, (0, padded(table.channels) - table.channels)))
    return found


def _joined(x: Tensor, beside: Tensor | None) -> Tensor:
    return x if beside is None else torch.cat([x, beside], dim=-1)


def _normalized(x: Tensor, over: tuple[int, ...], eps: float) -> Tensor:
    """Mean 0 and variance 1 over some dimensions, float32; the mean is off before squaring."""
    centred = x - x.mean(over, keepdim=True)
    return centred * (centred.square().mean(over, keepdim=True) + eps).rsqrt()
