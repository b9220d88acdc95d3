"""Exact int8 products: the operators of `onednn`, so used that all processors give the same bits.

Two things differ between processors, and between shapes on one: whether sums of full 8-bit weights
are exact (see `forms`), and whether the library rounds as the simulation does, `s` before `s_w`
before the bias. A packed weight says how both are dealt with; `proofs` finds out what is needed.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tfq_bench_cpu import onednn
from tfq_bench_cpu.forms import Form, fits, repeated, spread
from tfq_bench_cpu.onednn import Geometry
from tfq_bench_cpu.trials import saturates

__all__ = [
    "Epilogue",
    "Packed",
    "conv2d",
    "linear",
    "pack_conv2d",
    "pack_linear",
    "possible_forms",
    "sums_fit_float32",
]


class Epilogue(enum.Enum):
    """What a kernel does with its sums; the rest is done after it, in the simulation's order."""

    ALL = "scales them and adds the bias"
    SCALE = "multiplies them by the activation's scale"
    NONE = "gives them as they are, without the zero point, which a padding put there"
    """Without VNNI a zero point costs a fifth of the kernel. Only where float32 holds all sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Weights in oneDNN's own layout.

    Args:
        ones: float32 `[C_out]`, what is given as weight scale where the real one comes later.
        sums: float32 `[C_out]`, of the weights.
    """

    weight: Tensor
    form: Form
    epilogue: Epilogue
    ones: Tensor
    sums: Tensor
    _offsets: dict[int, Tensor] = field(default_factory=dict)

    def offset(self, zero_point: int) -> Tensor:
        """Float32 `[C_out]`: what a zero point adds to sums that were taken without it."""
        if zero_point not in self._offsets:
            self._offsets[zero_point] = self.sums * -zero_point
        return self._offsets[zero_point]


def possible_forms(weight: Tensor) -> Iterator[Form]:
    """The forms in which this machine may add `weight` without loss, the fastest first."""
    if not saturates() or fits(weight):
        yield Form.PLAIN
    if spread(weight, Form.PAIRS) is not None:
        yield Form.PAIRS
    yield Form.HALVES


def sums_fit_float32(weight: Tensor) -> bool:
    """Whether no code and zero point take a sum with `weight` to 2^24."""
    return 255 * int(weight.flatten(1).float().abs_().sum(1).max()) < 2**24


def pack_conv2d(
    weight: Tensor,
    geometry: Geometry,
    form: Form | None = None,
    epilogue: Epilogue = Epilogue.ALL,
    like: Packed | None = None,
) -> Packed:
    """Int8 weights `[C_out, C_in/groups, kh, kw]` for `conv2d`.

    Args:
        form: one of `possible_forms`, by default the first.
        like: the same weights packed before, which are taken from there if they fit.
    """
    form = form or next(possible_forms(weight))
    if like is not None and like.form is form and _pads(like) == (epilogue is not Epilogue.NONE):
        return dataclasses.replace(like, epilogue=epilogue)
    if epilogue is Epilogue.NONE:
        geometry = _unpadded(geometry)
    return _packed(onednn.pack_conv2d(_spread(weight, form), geometry), weight, form, epilogue)


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
    weight, ones = packed.weight, packed.ones
    padded = packed.epilogue is Epilogue.NONE and geometry.padding != (0, 0)
    if padded or packed.form is not Form.PLAIN:
        last = code.permute(0, 2, 3, 1)
        if padded:
            height, width = geometry.padding
            last = F.pad(last, (0, 0, width, width, height, height), value=zero_point)
        code = repeated(last, packed.form, geometry.groups).permute(0, 3, 1, 2)
    if packed.epilogue is Epilogue.ALL:
        return onednn.conv2d(code, scale, zero_point, weight, weight_scale, bias, geometry)
    if packed.epilogue is Epilogue.SCALE:
        y = onednn.conv2d(code, scale, zero_point, weight, ones, None, geometry)
    else:
        offset = packed.offset(zero_point)
        y = onednn.conv2d(code, 1.0, 0, weight, ones, offset, _unpadded(geometry)).mul_(scale)
    y.mul_(weight_scale.view(-1, 1, 1))
    return y if bias is None else y.add_(bias.view(-1, 1, 1))


def pack_linear(
    weight: Tensor,
    form: Form | None = None,
    epilogue: Epilogue = Epilogue.ALL,
    like: Packed | None = None,
) -> Packed:
    """Int8 weights `[C_out, C_in]` for `linear`; `epilogue` may not be `NONE`."""
    assert epilogue is not Epilogue.NONE
    form = form or next(possible_forms(weight))
    if like is not None and like.form is form:
        return dataclasses.replace(like, epilogue=epilogue)
    return _packed(onednn.pack_linear(_spread(weight, form)), weight, form, epilogue)


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
    code = repeated(code, packed.form)
    if packed.epilogue is Epilogue.ALL:
        return onednn.linear(code, scale, zero_point, packed.weight, weight_scale, bias)
    y = onednn.linear(code, scale, zero_point, packed.weight, packed.ones, None)
    y.mul_(weight_scale)
    return y if bias is None else y.add_(bias)


def _spread(weight: Tensor, form: Form) -> Tensor:
    found = spread(weight, form)
    assert found is not None, f"{form} is not among `possible_forms`"
    return found


def _packed(packed: Tensor, weight: Tensor, form: Form, epilogue: Epilogue) -> Packed:
    sums = weight.flatten(1).float().sum(1)
    ones = torch.ones(len(weight))
    return Packed(weight=packed, form=form, epilogue=epilogue, ones=ones, sums=sums)


def _pads(packed: Packed) -> bool:
    return packed.epilogue is not Epilogue.NONE


def _unpadded(geometry: Geometry) -> Geometry:
    return dataclasses.replace(geometry, padding=(0, 0))
