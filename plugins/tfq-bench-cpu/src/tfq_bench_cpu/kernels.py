"""Exact int8 products: the operators of `onednn`, so used that all processors give the same bits.

- Without VNNI or AMX, x86 adds pairs of products in 16 bits and saturates: 255 * 127 twice is
  64,770 and becomes 32,767. Weights of at most 64 are exact all the same (255 * 64 twice makes
  32,640), and a larger one is the sum of two such: then every input channel stands twice, beside
  the halves of its weights, and the int32 sum is the same. It costs twice the products.
- Where the library does not multiply `s` before `s_w`, as the simulation does, `s_w` and the bias
  are applied after the kernel.

Both are tried once per process, when the first weight is packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tfq_bench_cpu import onednn
from tfq_bench_cpu.onednn import Geometry
from tfq_bench_cpu.trials import EXACT_WEIGHT, saturates, scales_in_order

__all__ = ["Packed", "conv2d", "linear", "pack_conv2d", "pack_linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Weights in oneDNN's own layout.

    Args:
        halves: whether each stands there as the sum of two, for codes that are given twice.
        ones: float32 `[C_out]` to give as weight scale where the real one is applied afterwards,
            else None.
    """

    weight: Tensor
    halves: bool
    ones: Tensor | None


def pack_conv2d(weight: Tensor, geometry: Geometry) -> Packed:
    """Int8 weights `[C_out, C_in/groups, kh, kw]` for `conv2d`."""
    halves = _needs_halves(weight)
    packed = onednn.pack_conv2d(_halved(weight) if halves else weight, geometry)
    return Packed(weight=packed, halves=halves, ones=_ones(weight))


def conv2d(
    code: Tensor,
    scale: float,
    zero_point: int,
    packed: Packed,
    weight_scale: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """Float32 `[B, C_out, H', W']`, channels last, of uint8 codes `[B, C_in, H, W]`.

    Args:
        packed: from `pack_conv2d` with the same geometry.
        weight_scale, bias: float32 `[C_out]`.
    """
    if packed.halves:  # a group's channels stand together
        grouped = code.unflatten(1, (geometry.groups, -1))
        code = torch.cat([grouped, grouped], 2).flatten(1, 2)
    if packed.ones is None:
        return onednn.conv2d(code, scale, zero_point, packed.weight, weight_scale, bias, geometry)
    y = onednn.conv2d(code, scale, zero_point, packed.weight, packed.ones, None, geometry)
    y.mul_(weight_scale.view(-1, 1, 1))
    return y if bias is None else y.add_(bias.view(-1, 1, 1))


def pack_linear(weight: Tensor) -> Packed:
    """Int8 weights `[C_out, C_in]` for `linear`."""
    halves = _needs_halves(weight)
    packed = onednn.pack_linear(_halved(weight) if halves else weight)
    return Packed(weight=packed, halves=halves, ones=_ones(weight))


def linear(
    code: Tensor,
    scale: float,
    zero_point: int,
    packed: Packed,
    weight_scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Float32 `[..., C_out]` of uint8 codes `[..., C_in]`.

    Args:
        packed: from `pack_linear`.
        weight_scale, bias: float32 `[C_out]`.
    """
    if packed.halves:
        code = torch.cat([code, code], -1)
    if packed.ones is None:
        return onednn.linear(code, scale, zero_point, packed.weight, weight_scale, bias)
    y = onednn.linear(code, scale, zero_point, packed.weight, packed.ones, None)
    y.mul_(weight_scale)
    return y if bias is None else y.add_(bias)


def _needs_halves(weight: Tensor) -> bool:
    return int(weight.to(torch.int16).abs().max()) > EXACT_WEIGHT and saturates()


def _halved(weight: Tensor) -> Tensor:
    """`[C_out, 2 C_in/groups, ...]`: one half of every weight, then the other."""
    low = weight >> 1
    return torch.cat([low, weight - low], 1)


def _ones(weight: Tensor) -> Tensor | None:
    return None if scales_in_order() else torch.ones(len(weight))
