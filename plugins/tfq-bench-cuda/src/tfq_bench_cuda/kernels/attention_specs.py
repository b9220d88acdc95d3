"""What attention takes: how a launch is cut, prepared keys; and the checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tfq_bench_cuda.kernels.norms import Table

__all__ = ["CHANNELS", "Blocks", "Keys", "check_codes", "check_keys", "check_mask"]
__all__ += ["check_operand", "choose_blocks", "description", "parts"]

CHANNELS = (32, 40, 64, 72, 80, 96, 128, 160)
"""Channels of a head that the kernels are tested with; others than powers of two are padded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How one launch is cut: queries of a thread block, keys that it takes at a time.

    Args:
        stages: blocks of keys in flight.
    """

    queries: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys and values of B x H heads, ready for `attend`.

    Args:
        k: int8 `[B, H, padded, sum(parts(D))]`, or the keys as they came.
        k_scale, k_norm: float32 `[B, H, padded / block]`, None without 8-bit keys.
        v: the values as they came, or e4m3 `[B, H, sum(parts(D)), padded]`, tokens in the
            kernel's order.
        v_scale: float32 `[B, H, padded / block]`, None without 8-bit values.
        length: keys of a head. block: keys with the same scale.
    """

    k: Tensor
    k_scale: Tensor | None
    k_norm: Tensor | None
    v: Tensor
    v_scale: Tensor | None
    length: int
    block: int


def choose_blocks(channels: int, length: int, *, qk: str = "int8", pv: str = "bf16") -> Blocks:
    """For heads of that many channels and keys, and the products of `attention8`.

    Up to 64 channels: the fastest of `benchmarks/gpu_attention.py` on an H100. Above, where
    registers are scarce, blocks are chosen so that little is spilled.
    """
    kept = sum(parts(channels))
    if qk == "bf16" and (length <= 128 or kept > 64):
        # Not 64 keys and three stages beside a second product: that program of Triton 3.6 gave
        # wrong numbers on an H100, or read outside of its operands.
        return Blocks(queries=128 if kept <= 96 else 64, keys=32, warps=4, stages=2)
    if kept <= 64 and pv == "fp8":
        return Blocks(queries=64, keys=128, warps=4, stages=2)
    if kept <= 64 and qk == "int8":
        if length <= 2048:
            return Blocks(queries=64, keys=64, warps=4, stages=3)
        return Blocks(queries=128, keys=64, warps=8, stages=3)
    if kept <= 96:
        return Blocks(queries=128, keys=64, warps=4, stages=3)
    if kept <= 128:
        return Blocks(queries=128, keys=64, warps=8, stages=2)
    return Blocks(queries=64, keys=64, warps=4, stages=2)


def parts(channels: int) -> tuple[int, int]:
    """Powers of two that the channels of a head are cut into; the second is 0 or at least 32.

    >>> [parts(channels) for channels in (40, 64, 72, 160)]
    [(64, 0), (64, 0), (64, 32), (128, 32)]
    """
    whole = max(32, 1 << (channels - 1).bit_length())
    if channels > whole // 2 + 32 or whole == 32:
        return whole, 0
    return (whole // 2, 32) if whole > 64 else (whole, 0)


def description(x: Tensor) -> str:
    """For messages."""
    return f"{x.dtype} {list(x.shape)} of strides {x.stride()}"


def check_operand(name: str, x: Tensor) -> None:
    """Refuses what no kernel takes.

    Raises:
        ValueError: for another dtype, rank, number of channels or stride of the channels.
    """
    good = x.dim() == 4 and x.dtype in (torch.bfloat16, torch.float16) and x.numel() > 0
    if not (good and x.shape[-1] in CHANNELS and x.stride(-1) == 1):
        raise ValueError(
            f"attention8: {name} is expected as bfloat16 or float16 [batch, heads, tokens, "
            f"channels], not empty, channels one of {CHANNELS} with stride 1; "
            f"found {description(x)}."
        )


def check_keys(k: Tensor, v: Tensor, qk: str, pv: str) -> None:
    """Refuses keys and values that do not fit each other, and unknown products.

    Raises:
        ValueError: also where the card has no 8-bit floats.
    """
    check_operand("k", k)
    check_operand("v", v)
    if v.shape != k.shape or v.dtype != k.dtype:
        raise ValueError(
            f"attention8: v is expected as k, {description(k)}; found {description(v)}."
        )
    if qk not in ("int8", "bf16") or pv not in ("bf16", "fp8"):
        raise ValueError(
            "attention8: expected qk 'int8' or 'bf16' and pv 'bf16' or 'fp8', "
            f"found '{qk}' and '{pv}'."
        )
    if qk == "bf16" and pv == "fp8":
        raise ValueError("attention8: pv 'fp8' needs qk 'int8', found 'bf16'; use pv 'bf16'.")
    if pv == "fp8" and k.is_cuda:
        capability = torch.cuda.get_device_capability(k.device)
        if capability < (8, 9):
            raise ValueError(
                "attention8: pv 'fp8' needs compute capability 8.9 or more, found "
                f"{capability[0]}.{capability[1]}; use pv 'bf16'."
            )


def check_mask(q: Tensor, mask: Tensor | None, length: int, qk: str) -> None:
    """Refuses a mask that is not one number for each key of an image, and 8-bit keys with one.

    Raises:
        ValueError: also for another dtype, or keys that are not beside each other.
    """
    if mask is None:
        return
    expected = (q.shape[0], length)
    if qk != "bf16" or mask.dtype != q.dtype or mask.shape != expected or mask.stride(1) != 1:
        raise ValueError(
            f"attention8: a mask is expected with qk 'bf16', in {q.dtype} {list(expected)}, its "
            f"keys beside each other; found qk '{qk}' and {description(mask)}."
        )


def check_codes(q: Tensor, codes: Table, step: Tensor | None) -> None:
    """Refuses a table that is not of all channels of all heads.

    Raises:
        ValueError: also without a step.
    """
    channels = q.shape[1] * q.shape[3]
    if step is None or (codes.start, codes.channels) != (0, channels):
        raise ValueError(
            f"attention8: codes are expected of channels 0 to {channels} with a step; found "
            f"{codes.channels} from {codes.start} on, step {step}."
        )
