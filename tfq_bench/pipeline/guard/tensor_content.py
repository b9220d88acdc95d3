"""What a tensor holds, in a few numbers.

Every value counts: sums of the tensor's bits, which any single change moves, and some values by
position, which a rearrangement moves. That reads a tensor once, two tenths of a second for a
gigabyte; version counters would be cheaper, and blind to `.data`.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

__all__ = ["tensor_content"]

_SAMPLE = 64
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def tensor_content(tensor: Tensor) -> Hashable:
    """Equal for equal tensors, and for others only by a chance of one in very many."""
    facts = (tensor.dtype, tuple(tensor.shape), str(tensor.device), tensor.requires_grad)
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return (*facts, tensor._version)
    flat = _flat(tensor.detach())
    # Words of eight bytes: sums of narrower integers are not vectorized, fifty times as slow.
    words = 8 // flat.element_size()
    whole = flat.numel() // words * words
    total = int(flat[:whole].view(torch.int64).sum()) if whole else 0
    some = flat[:: max(flat.numel() // _SAMPLE, 1)][:_SAMPLE]
    rest = flat[whole:].view(_BITS[flat.element_size()])
    return (*facts, total, tuple(rest.tolist()), tuple(some.view(rest.dtype).tolist()))


def _flat(tensor: Tensor) -> Tensor:
    """The elements in one dimension, as they lie in memory where that is possible."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    flat = tensor.reshape(-1)
    return flat.clone() if flat.storage_offset() * flat.element_size() % 8 else flat
