"""Images as rows of pixels with channels last, and the group norm whose output is codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import Unfusable
from tfq_bench_cuda.kernels.norms import group_norm_codes

if TYPE_CHECKING:
    from tfq_bench_cuda.layers import CudaLayer

__all__ = ["as_images", "as_pixels", "group_norm", "norm_codes"]


def as_pixels(x: Tensor) -> Tensor:
    """`[B, H * W, C]` contiguous of `[B, C, H, W]`; a view when x is channels last in memory."""
    return x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def as_images(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """`[B, C, H, W]`, channels last in memory: a view of contiguous `[B * H * W, C]`."""
    return rows.view(-1, *size, rows.shape[-1]).permute(0, 3, 1, 2)


def group_norm(block: nn.Module, name: str) -> nn.GroupNorm:
    """The block's group norm of that name.

    Raises:
        Unfusable: there is none, or one without weights.
    """
    norm = getattr(block, name, None)
    if type(norm) is not nn.GroupNorm or not norm.affine:
        raise Unfusable(f"'{name}' is no group norm with weights, it is a {type(norm).__name__}")
    return norm


def norm_codes(
    norm: nn.GroupNorm,
    rows: Tensor,
    layers: Sequence[CudaLayer],
    *,
    silu: bool,
    beside: Tensor | None = None,
) -> list[list[Tensor]]:
    """For each layer its parts' codes `[B, P, padded channels]` of the norm of `rows`.

    Args:
        rows: `[B, P, C]` contiguous.
        silu: whether a SiLU follows the norm.
        beside: further channels `[B, P, C']`, contiguous.
    """
    assert isinstance(norm.weight, torch.Tensor)
    assert isinstance(norm.bias, torch.Tensor)
    tables = [layer.tables for layer in layers]
    codes = iter(
        group_norm_codes(
            rows,
            norm.weight,
            norm.bias,
            groups=norm.num_groups,
            eps=norm.eps,
            silu=silu,
            step=layers[0].step.index,
            tables=[table for of_layer in tables for table in of_layer],
            beside=beside,
        )
    )
    return [[next(codes) for _ in of_layer] for of_layer in tables]
