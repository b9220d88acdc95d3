"""Randomness by purpose and index, so that batches and workers never change a result.

Every image has its own generator: its noise is the same in every cell, in every batch and on
every worker. Generators live on the CPU, because CPU and GPU generators differ.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

__all__ = ["derive", "generator", "noise"]


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose and index; different ones are independent."""
    text = f"{seed}/{purpose}/{index}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator for one purpose and index."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(seed, purpose, index))


def noise(
    seed: int, purpose: str, indices: Sequence[int], shape: tuple[int, ...], *, device: str
) -> Tensor:
    """Standard normal float32 `[len(indices), *shape]`, row by row from each index's generator."""
    import torch

    rows = [
        # Explicit, because a plugin may have changed torch's defaults for the process.
        torch.randn(shape, generator=generator(seed, purpose, i), dtype=torch.float32, device="cpu")
        for i in indices
    ]
    return torch.stack(rows).to(device)
