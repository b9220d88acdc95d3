"""The Triton kernel of `unpack`: four bytes of packed weights at a time, as one number."""

# ruff: noqa: ANN001, ANN202 - Triton reads annotations

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch"]

_BLOCK = 256
"""Groups of 32 weights for one thread block."""


@triton.jit
def _signed(halves):
    """Four numbers of 4 bits, one in the low half of each byte, as int8."""
    sign = (halves & 0x08080808) << 1
    sign = sign | (sign << 1)
    return halves | sign | (sign << 2)


@triton.jit
def _expand(packed, out, groups, BLOCK: tl.constexpr):
    group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    word = tl.arange(0, 4)[None, :]
    inside = (group < groups) & (word < 4)
    both = tl.load(packed + group * 4 + word, mask=inside, other=0)
    place = out + group * 8 + word
    tl.store(place, _signed(both & 0x0F0F0F0F), mask=inside)
    tl.store(place + 4, _signed((both >> 4) & 0x0F0F0F0F), mask=inside)


def launch(packed: Tensor, out: Tensor) -> None:
    """See `unpack.expand`; both begin at a multiple of 16 bytes."""
    groups = packed.numel() // 16
    words, places = packed.view(-1).view(torch.int32), out.view(-1).view(torch.int32)
    _expand[(triton.cdiv(groups, _BLOCK),)](words, places, groups, BLOCK=_BLOCK)
