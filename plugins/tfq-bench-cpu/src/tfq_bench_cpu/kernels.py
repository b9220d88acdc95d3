"""The int8 kernels, as functions of tensors: oneDNN operators that ship with torch.

With codes `q` in [0, 255], zero point `z`, scale `s`, int8 weights `w` and their scale `s_w` per
output channel, both kernels return

    y = s * s_w * sum_i (q_i - z) * w_i + bias        sums in int32, y in float32.

What the operators ask for, and what is easy to get wrong:

- Activations are unsigned. Signed ones are refused by the convolution and take the linear layer
  to a reference implementation that is a thousand times slower.
- Weights are symmetric: a weight zero point is accepted and ignored, so it is taken off before.
- A convolution pads with the zero point `z`, that is with real 0.
- Without VNNI or AMX, x86 adds pairs of products in 16 bits and saturates: 255 * 127 twice is
  64,770 and becomes 32,767. Weights of at most 64 are exact all the same (255 * 64 twice makes
  32,640), and a larger one is the sum of two such: then every input channel stands twice, beside
  the halves of its weights, and the int32 sum is the same. It costs twice the products.
- Which scale is multiplied first is the library's choice for each instruction set, and shows in the
  last bit. Where it is not `s` before `s_w`, as in the simulation, `s_w` and the bias are applied
  after the kernel, so that both give the same bits everywhere.
- Scale and zero point of the activation may change from call to call without packing again.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "EXACT_WEIGHT",
    "Geometry",
    "Packed",
    "conv2d",
    "largest_sum",
    "linear",
    "pack_conv2d",
    "pack_linear",
    "quantize",
]

EXACT_WEIGHT = 64
"""The largest magnitude of a weight at which two products with 255 fit 16 bits."""

TERMS = 64
"""Products of a trial sum: one full vector of 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a convolution walks over its input; pairs are (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Weights in oneDNN's own layout.

    Args:
        halves: whether each stands there as the sum of two, for codes that are given twice.
    """

    weight: Tensor
    halves: bool


def quantize(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    """uint8 codes `clamp(round(x * (1/scale)) + zero_point, 0, 2^bits - 1)` of a tensor.

    The reciprocal and the product are taken in float32 and ties go to the even code, as
    `tfq_bench.quant` does; the memory format of `x` is kept. `torch.quantize_per_tensor` is
    one vectorised pass, a seventh of the time of the same expression in elementary operators. Its
    result is read through its storage, because `int_repr()` would copy it.
    """
    stored = torch.quantize_per_tensor(x.float(), scale, zero_point, torch.quint8)
    code = torch.empty(0, dtype=torch.uint8)
    code.set_(stored.untyped_storage(), 0, stored.size(), stored.stride())
    return code if bits == 8 else code.clamp_(max=2**bits - 1)


def pack_conv2d(weight: Tensor, geometry: Geometry) -> Packed:
    """Int8 weights `[C_out, C_in/groups, kh, kw]` for `conv2d`."""
    halves = _needs_halves(weight)
    packed = _pack_conv2d(_halved(weight) if halves else weight, geometry)
    return Packed(weight=packed, halves=halves)


def _pack_conv2d(weight: Tensor, geometry: Geometry) -> Tensor:
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
    if not _scales_in_order():
        ones = torch.ones_like(weight_scale)
        y = _conv2d(code, scale, zero_point, packed.weight, ones, None, geometry)
        return _scaled(
            y, weight_scale.view(-1, 1, 1), None if bias is None else bias.view(-1, 1, 1)
        )
    return _conv2d(code, scale, zero_point, packed.weight, weight_scale, bias, geometry)


def _conv2d(
    code: Tensor,
    scale: float,
    zero_point: int,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    return torch.ops.onednn.qconv2d_pointwise(  # type: ignore[no-any-return]
        code.contiguous(memory_format=torch.channels_last),
        scale,
        zero_point,
        packed,
        weight_scale,
        _no_zero_point(weight_scale),
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


def pack_linear(weight: Tensor) -> Packed:
    """Int8 weights `[C_out, C_in]` for `linear`."""
    halves = _needs_halves(weight)
    packed = torch.ops.onednn.qlinear_prepack(_halved(weight) if halves else weight, None)
    return Packed(weight=packed, halves=halves)


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
    if not _scales_in_order():
        ones = torch.ones_like(weight_scale)
        return _scaled(
            _linear(code, scale, zero_point, packed.weight, ones, None), weight_scale, bias
        )
    return _linear(code, scale, zero_point, packed.weight, weight_scale, bias)


def _linear(
    code: Tensor,
    scale: float,
    zero_point: int,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
        code,
        scale,
        zero_point,
        packed,
        weight_scale,
        _no_zero_point(weight_scale),
        bias,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )


def largest_sum(weight: int) -> float:
    """The sum of 64 products of 255 and `weight` that is further from the truth, of both kernels.

    The weight is taken as it is, never in halves.
    """
    code = torch.full((1, TERMS, 1, 1), 255, dtype=torch.uint8)
    weights = torch.full((1, TERMS, 1, 1), weight, dtype=torch.int8)
    one = torch.ones(1)
    geometry = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    flat = torch.ops.onednn.qlinear_prepack(weights.flatten(1), None)
    sums = (
        _conv2d(code, 1.0, 0, _pack_conv2d(weights, geometry), one, None, geometry).item(),
        _linear(code.flatten(1), 1.0, 0, flat, one, None).item(),
    )
    return max(sums, key=lambda found: abs(found - TERMS * 255 * weight))


@functools.cache
def _saturates() -> bool:
    """Whether this machine loses sums of full 8-bit weights: tried, not read from its flags."""
    return any(largest_sum(weight) != TERMS * 255 * weight for weight in (127, -128))


@functools.cache
def _scales_in_order() -> bool:
    """Whether both kernels round as `sum * s * s_w + bias` does, tried on 4,096 random sums."""
    generator = torch.Generator().manual_seed(0)
    code = torch.randint(0, 256, (64, TERMS), generator=generator, dtype=torch.uint8)
    weight = torch.randint(
        -EXACT_WEIGHT, EXACT_WEIGHT + 1, (64, TERMS), generator=generator, dtype=torch.int8
    )
    scale, weight_scale = 0.0371, torch.rand(64, generator=generator)
    bias = torch.randn(64, generator=generator)
    sums = (code.long() @ weight.long().T).float()
    expected = sums * scale * weight_scale + bias
    geometry = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    flat = _linear(code, scale, 0, packed, weight_scale, bias)
    packed = _pack_conv2d(weight[..., None, None], geometry)
    conv = _conv2d(code[..., None, None], scale, 0, packed, weight_scale, bias, geometry)
    return torch.equal(expected, flat) and torch.equal(expected, conv.flatten(1))


def _scaled(y: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    y.mul_(weight_scale)
    return y if bias is None else y.add_(bias)


def _needs_halves(weight: Tensor) -> bool:
    return int(weight.to(torch.int16).abs().max()) > EXACT_WEIGHT and _saturates()


def _halved(weight: Tensor) -> Tensor:
    """`[C_out, 2 C_in/groups, ...]`: one half of every weight, then the other."""
    low = weight >> 1
    return torch.cat([low, weight - low], 1)


def _no_zero_point(weight_scale: Tensor) -> Tensor:
    return torch.zeros(weight_scale.shape, dtype=torch.int32)
