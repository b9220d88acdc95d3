"""How weights are laid out so that pairs of products fit 16 bits.

Without VNNI or AMX, x86 multiplies unsigned by signed bytes and adds neighbours, two input channels
of one tap, in 16 bits: 255 * 127 twice is 64,770 and becomes 32,767. A pair of weights is exact for
every two codes when its positive weights add up to at most 128 and its negative ones to no less
than -128 (255 * 128 is 32,640). What is more goes to a copy of the channel, and the int32 sum is
the same:

- `PAIRS`: the first channel of every pair stands there once more, with what its weight loses. The
  products are one and a half times as many.
- `HALVES`: every channel stands there twice, beside the halves of its weight: twice the products.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

__all__ = ["Form", "fits", "repeated", "spread"]

_MOST = 128


class Form(enum.Enum):
    """How often the input channels stand in a kernel's operands; the value is for its name."""

    PLAIN = ""
    PAIRS = ", every second channel twice"
    HALVES = ", weights in halves"


def fits(weight: Tensor) -> bool:
    """Whether no pair of products leaves 16 bits, whatever the codes.

    Args:
        weight: integers `[C_out, C_in/groups, ...]`.
    """
    low, high = weight.aminmax()
    if low >= -_MOST // 2 and high <= _MOST // 2:
        return True
    weight = weight.to(torch.int16)
    count = weight.shape[1] // 2 * 2
    first, second = weight[:, 0:count:2], weight[:, 1:count:2]
    if count == 0:
        return True
    high = (first.clamp(min=0) + second.clamp(min=0)).max()
    low = (first.clamp(max=0) + second.clamp(max=0)).min()
    return bool(high <= _MOST and low >= -_MOST)


def spread(weight: Tensor, form: Form) -> Tensor | None:
    """Int8 weights for codes that are `repeated`; None where the form does not make them fit.

    Args:
        weight: int8 `[C_out, C_in/groups, ...]`.
    """
    if form is Form.PLAIN:
        return weight
    if form is Form.HALVES:
        low = weight >> 1
        return torch.cat([low, weight - low], 1)
    if weight.shape[1] % 2:
        return None
    kept = weight.to(torch.int16)
    first, second = kept[:, ::2], kept[:, 1::2]
    most, least = _MOST - second.clamp(min=0), -_MOST - second.clamp(max=0)
    bounded = torch.maximum(torch.minimum(first, most), least)
    rest = first - bounded
    first.copy_(bounded)
    return torch.cat([kept, rest], 1).to(torch.int8) if fits(rest) else None


def repeated(code: Tensor, form: Form, groups: int = 1) -> Tensor:
    """Codes `[..., C_in]` with the channels of each group repeated as `form` says."""
    if form is Form.PLAIN:
        return code
    grouped = code.contiguous().unflatten(-1, (groups, -1))
    # The low byte of two: a fifth of the time of `grouped[..., ::2]`.
    again = grouped if form is Form.HALVES else grouped.view(torch.int16).to(torch.uint8)
    return torch.cat([grouped, again], -1).flatten(-2)
