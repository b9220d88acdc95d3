"""Group norm, layer norm and rows of any tensor to int8 codes, one code per reader.

CUDA tensors run Triton kernels, all others the same arithmetic in plain torch
(`norm_reference`), so that what is built on these calls is tested without a GPU. Batch, pixels,
rows and sampler steps are arguments of a kernel: another batch compiles nothing. Nothing is read
on the host, so that all of it can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tfq_bench_cuda.kernels import norm_reference
from tfq_bench_cuda.kernels.norm_reference import Table

__all__ = ["Table", "group_norm_codes", "layer_norm_codes", "row_codes"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def group_norm_codes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool,
    step: Tensor,
    tables: Sequence[Table],
    beside: Tensor | None = None,
) -> list[Tensor]:
    """int8 `[B, P, padded(channels)]` per table: `GroupNorm`, SiLU if asked for, quantization.

    Two kernels: moments of blocks of pixels; their sum, the norm and all codes.

    Args:
        x: `[B, P, C]` contiguous, P pixels with channels last; float32, bfloat16 or float16.
        weight, bias: `[C]`.
        groups: each has C / groups channels, of all pixels of an image.
        step: int64 `[1]`, the sampler step; a table's last entry stands for all later ones.
        beside: `[B, P, C']` contiguous, of the same type: the norm is that of x and these channels
            after it, as if they were concatenated; C stands for both then.

    Raises:
        ValueError: a shape, layout or type that the kernels do not take.
    """
    channels = _check("group_norm_codes", x, 3, x.is_contiguous(), tables, beside)
    if groups < 1 or channels % groups:
        raise ValueError(
            f"group_norm_codes: expected groups of equal size, found {groups} groups of {channels}"
            " channels"
        )
    _check_vectors("group_norm_codes", channels, weight=weight, bias=bias)
    with torch.cuda.device_of(x):
        return _kernels(x).group_norm_codes(
            x,
            weight,
            bias,
            groups=groups,
            eps=eps,
            silu=silu,
            step=step,
            tables=tables,
            beside=beside,
        )


def layer_norm_codes(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    step: Tensor,
    tables: Sequence[Table],
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> list[Tensor]:
    """int8 `[B, S, padded(channels)]` per table: `LayerNorm`, modulation, quantization; one kernel.

    Args:
        x: `[B, S, C]` contiguous; float32, bfloat16 or float16.
        weight, bias: `[C]`, or None for a norm without them.
        step: as in `group_norm_codes`.
        scale, shift: `[B, C]`, rows may be strided: the norm times `1 + scale`, plus `shift`
            (adaptive layer norm of DiT and PixArt).

    Raises:
        ValueError: a shape, layout or type that the kernels do not take.
    """
    _check("layer_norm_codes", x, 3, x.is_contiguous(), tables)
    images, _, channels = x.shape
    _check_vectors("layer_norm_codes", channels, weight=weight, bias=bias)
    for name, value in {"scale": scale, "shift": shift}.items():
        if value is not None and (value.shape != (images, channels) or value.stride(1) != 1):
            raise ValueError(
                f"layer_norm_codes: expected {name} [{images}, {channels}] whose channels are "
                f"contiguous, found {list(value.shape)} with strides {value.stride()}"
            )
    with torch.cuda.device_of(x):
        return _kernels(x).layer_norm_codes(
            x, weight, bias, eps=eps, step=step, tables=tables, scale=scale, shift=shift
        )


def row_codes(
    x: Tensor, *, step: Tensor, tables: Sequence[Table], beside: Tensor | None = None
) -> list[Tensor]:
    """int8 `[M, padded(channels)]` per table: quantization alone, one kernel.

    Args:
        x: `[M, C]`; rows may be strided, channels are contiguous.
        step, beside: as in `group_norm_codes`; beside is `[M, C']`.

    Raises:
        ValueError: a shape, layout or type that the kernels do not take.
    """
    _check("row_codes", x, 2, x.stride(-1) == 1, tables, beside)
    with torch.cuda.device_of(x):
        return _kernels(x).row_codes(x, step=step, tables=tables, beside=beside)


def _kernels(x: Tensor) -> Any:
    """The module that computes on the device of `x`; Triton is loaded for CUDA alone."""
    if not x.is_cuda:
        return norm_reference
    from tfq_bench_cuda.kernels import norm_launch

    return norm_launch


def _check(
    call: str,
    x: Tensor,
    dimensions: int,
    laid_out: bool,
    tables: Sequence[Table],
    beside: Tensor | None = None,
) -> int:
    """How many channels are read."""
    if x.dim() != dimensions or not laid_out or x.dtype not in _DTYPES:
        raise ValueError(
            f"{call}: expected {dimensions} dimensions, channels last and contiguous, of float32, "
            f"bfloat16 or float16; found {list(x.shape)}, strides {x.stride()}, {x.dtype}"
        )
    channels = x.shape[-1]
    if beside is not None:
        if (
            beside.shape[:-1] != x.shape[:-1]
            or beside.dtype != x.dtype
            or not (beside.is_contiguous() and x.is_contiguous())
        ):
            raise ValueError(
                f"{call}: expected further channels of {list(x.shape)}, {x.dtype}, both "
                f"contiguous; found {list(beside.shape)}, strides {beside.stride()}, {beside.dtype}"
            )
        channels += beside.shape[-1]
    for table in tables:
        if table.start < 0 or table.channels < 1 or table.start + table.channels > channels:
            raise ValueError(
                f"{call}: expected tables of channels 0 to {channels}, found one of "
                f"{table.start} to {table.start + table.channels}"
            )
    return channels


def _check_vectors(call: str, channels: int, **vectors: Tensor | None) -> None:
    for name, value in vectors.items():
        if value is not None and value.shape != (channels,):
            raise ValueError(f"{call}: expected {name} [{channels}], found {list(value.shape)}")
