"""The int8 operators of oneDNN that ship with torch, as functions of tensors.

With codes `q` in [0, 255], zero point `z`, scale `s`, int8 weights `w` and their scale `s_w` per
output channel, both products return

    y = s * s_w * sum_i (q_i - z) * w_i + bias        sums in int32, y in float32.

What the operators ask for, and what is easy to get wrong:

- Activations are unsigned. Signed ones are refused by the convolution and take the linear layer
  to a reference implementation that is a thousand times slower.
- Weights are symmetric: a weight zero point is accepted and ignored, so it is taken off before.
- A convolution pads with the zero point `z`, that is with real 0.
- Scale and zero point of the activation may change from call to call without packing again.

Whether sums are exact, and in which order scales are multiplied, depends on processor and shape:
see `proofs`; `kernels` gives the same bits on all.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Geometry", "conv2d", "linear", "pack_conv2d", "pack_linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a convolution walks over its input; pairs are (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def pack_conv2d(weight: Tensor, geometry: Geometry) -> Tensor:
    """Int8 weights `[C_out, C_in/groups, kh, kw]` in oneDNN's own layout."""
    # Scales and zero point do not enter the packed weight: they are given again at every call.
    return torch.ops.onednn.qconv_prepack(  # type: ignore[no-any-return]
        weight,
        torch.ones(len(weight)),
        1.0,
        0,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        None,
    )


def conv2d(
    code: Tensor,
    scale: float,
    zero_point: int,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """Float32 `[B, C_out, H', W']`, channels last, of uint8 codes `[B, C_in, H, W]`.

    Args:
        packed: from `pack_conv2d` with the same geometry.
        weight_scale, bias: float32 `[C_out]`.
    """
    return torch.ops.onednn.qconv2d_pointwise(  # type: ignore[no-any-return]
        code.contiguous(memory_format=torch.channels_last),
        scale,
        zero_point,
        packed,
        weight_scale,
        _no_zero_points(len(weight_scale)),
        bias,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        None,
    )


def pack_linear(weight: Tensor) -> Tensor:
    """Int8 weights `[C_out, C_in]` in oneDNN's own layout."""
    return torch.ops.onednn.qlinear_prepack(weight, None)  # type: ignore[no-any-return]


def linear(
    code: Tensor,
    scale: float,
    zero_point: int,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Float32 `[..., C_out]` of uint8 codes `[..., C_in]`.

    Args:
        packed: from `pack_linear`.
        weight_scale, bias: float32 `[C_out]`.
    """
    return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
        code,
        scale,
        zero_point,
        packed,
        weight_scale,
        _no_zero_points(len(weight_scale)),
        bias,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )


@functools.cache
def _no_zero_points(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int32)
