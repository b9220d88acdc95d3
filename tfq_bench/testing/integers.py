"""Exact integer sums, for tests of kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tfq_bench.errors import LoweringError
from tfq_bench.quant.state.affine import per_channel, quantize

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.quant.state.quantized_state import QuantizedLayer

__all__ = ["integer_sums"]


def integer_sums(
    layer: QuantizedLayer,
    x: Tensor,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    step: int = 0,
) -> tuple[Tensor, ...]:
    """The exact accumulators of a layer, one int64 tensor in the output's shape per part.

    A part's accumulator is the sum over its inputs of (q - z) * (q_w - z_w); its share of the
    output is that times `s * s_w`. Padding contributes nothing, because it holds q = z.
    The sums are formed in float64, which is exact below 2^53; no layer comes near it.

    Args:
        x: the layer's float input. step: index into the activation tables.

    Raises:
        LoweringError: the layer has float activations, so there are no integers.
    """
    sums = []
    for part in layer.parts:
        table = part.activation
        if table is None:
            raise LoweringError(f"layer '{layer.name}' has float activations: no integer sums.")
        k = step if len(table.scale) > 1 else 0
        scale, zero_point = table.scale[k].to(x.device), table.zero_point[k].to(x.device)
        dim = 1 if layer.kind == "conv2d" else -1
        piece = x.narrow(dim, part.start, part.stop - part.start)
        code = quantize(piece, scale, zero_point, table.bits).double() - zero_point
        weight = part.weight.double() - per_channel(part.zero_point, part.weight)
        weight = weight.to(x.device)
        if layer.kind == "conv2d":
            total = F.conv2d(code, weight, None, stride, padding, dilation, groups)
        else:
            total = F.linear(code, weight)
        sums.append(total.round().to(torch.int64))
    return tuple(sums)
