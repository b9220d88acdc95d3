"""Two 4-bit weights a byte: how they are packed, and how a product gets its int8 weights back.

A row of k weights is cut into groups of 32. Byte j of a group's 16 holds weight j in its low half
and weight 16 + j in its high half, both as two's complement, so that 16 bytes that are read at once
become twice 16 bytes that are written at once.

A product reads int8 weights, so they are expanded into one buffer just before it. It lies in the
second-level cache then, and takes the room of the largest weight alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Scratch", "expand", "expand_reference", "pack"]

_HALF = 16


def pack(weight: Tensor) -> Tensor:
    """uint8 `[n, k / 2]` of int8 `[n, k]` in [-8, 7], k a multiple of 32."""
    groups = weight.view(torch.uint8).reshape(len(weight), -1, 2, _HALF)
    packed = (groups[:, :, 0] & 15) | (groups[:, :, 1] << 4)
    return packed.reshape(len(weight), -1)


def expand_reference(packed: Tensor) -> Tensor:
    """int8 `[n, k]`, the inverse of `pack`, in plain torch."""
    halves = torch.stack((packed & 15, packed >> 4)).to(torch.int8)
    signed = (halves ^ 8) - 8
    groups = signed.reshape(2, len(packed), -1, _HALF).permute(1, 2, 0, 3)
    return groups.reshape(len(packed), -1)


def expand(packed: Tensor, out: Tensor) -> None:
    """Writes the int8 weights of `packed` to `out`, `[n, k]`; both contiguous."""
    if packed.device.type == "cuda":
        from tfq_bench_cuda.kernels.unpack_program import launch

        launch(packed, out)
    else:
        out.copy_(expand_reference(packed))


class Scratch:
    """One int8 buffer for all weights of a network, one after the other.

    It grows while a network is loaded, so that a captured CUDA graph finds it where it was.

    Attributes:
        buffer: int8; None before the first weight.
    """

    def __init__(self) -> None:
        self.buffer: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return 0 if self.buffer is None else self.buffer.nbytes

    def expanded(self, packed: Tensor) -> Tensor:
        """int8 `[n, k]`, valid until the next call: use it before, on the same stream."""
        size = 2 * packed.numel()
        if self.buffer is None or self.buffer.numel() < size:
            self.buffer = torch.empty(size, dtype=torch.int8, device=packed.device)
        out = self.buffer[:size].view(len(packed), -1)
        expand(packed, out)
        return out
