"""Tensor cores for float32, asked for where they do no harm and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["tf32"]


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 on tensor cores while the context is open; nothing changes on a CPU.

    Operands are rounded to 11 significant bits, sums are float32. For integers of up to 9 bits,
    such as codes less their zero point, that is exact; for learning it is exact enough: weights of
    8 bits keep their levels, which bfloat16 would merge.
    """
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
