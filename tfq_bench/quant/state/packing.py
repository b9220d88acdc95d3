"""Codes at their true width.

A packed tensor is one little-endian bit stream: code `i` occupies bits `i*b` to `i*b + b - 1`, and
bit `k` of the stream is bit `k % 8` of byte `k // 8`. So two 4-bit codes share a byte, low nibble
first, and four 6-bit codes take three bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import QuantizationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pack", "packed_size", "unpack"]

CHUNK_WORDS = 2**18
"""Groups of codes that are packed or unpacked at once, so that temporaries stay small."""


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take when packed."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 `[packed_size(n, bits)]`, the n codes as a little-endian bit stream.

    Args:
        codes: uint8 of any shape, read in row-major order, each in [0, 2^bits - 1].
        bits: 2 to 8.

    Raises:
        QuantizationError: `bits` out of range, another dtype, or a code that does not fit.
    """
    _check_bits(bits)
    if codes.dtype != torch.uint8:
        raise QuantizationError(f"codes must be uint8 to be packed, found {codes.dtype}.")
    if codes.numel() and int(codes.max()) >= 1 << bits:
        raise QuantizationError(
            f"codes of {bits} bits must be at most {(1 << bits) - 1}, found {int(codes.max())}."
        )
    flat = codes.contiguous().reshape(-1)
    if bits == 8:
        return flat.clone()
    group, width = _group(bits)
    words = -(-flat.numel() // group)
    padded = torch.zeros(words * group, dtype=torch.uint8, device=flat.device)
    padded[: flat.numel()] = flat
    packed = torch.empty((words, width), dtype=torch.uint8, device=flat.device)
    columns = padded.reshape(words, group)
    for start in range(0, words, CHUNK_WORDS):
        some, target = columns[start : start + CHUNK_WORDS], packed[start : start + CHUNK_WORDS]
        word = some[:, 0].to(_word(width))
        for column in range(1, group):
            word |= some[:, column].to(word.dtype) << (bits * column)
        for byte in range(width):
            target[:, byte] = (word >> (8 * byte)) & 0xFF
    return packed.reshape(-1)[: packed_size(flat.numel(), bits)].clone()


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """uint8 codes of `shape`, the inverse of `pack`.

    Args:
        packed: uint8 1-D as `pack` returned it.

    Raises:
        QuantizationError: `bits` out of range, or `packed` has not the length that `shape` needs.
    """
    _check_bits(bits)
    count = math.prod(shape)
    expected = packed_size(count, bits)
    if packed.dtype != torch.uint8 or packed.shape != (expected,):
        raise QuantizationError(
            f"{count} codes of {bits} bits need {expected} bytes of uint8, found "
            f"{tuple(packed.shape)} of {packed.dtype}."
        )
    if bits == 8:
        return packed.reshape(shape).clone()
    group, width = _group(bits)
    words = -(-count // group)
    padded = torch.zeros(words * width, dtype=torch.uint8, device=packed.device)
    padded[:expected] = packed
    codes = torch.empty((words, group), dtype=torch.uint8, device=packed.device)
    columns = padded.reshape(words, width)
    for start in range(0, words, CHUNK_WORDS):
        some, target = columns[start : start + CHUNK_WORDS], codes[start : start + CHUNK_WORDS]
        word = some[:, 0].to(_word(width))
        for byte in range(1, width):
            word |= some[:, byte].to(word.dtype) << (8 * byte)
        for column in range(group):
            target[:, column] = (word >> (bits * column)) & ((1 << bits) - 1)
    return codes.reshape(-1)[:count].reshape(shape)


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise QuantizationError(f"codes have 2 to 8 bits, found {bits}.")


def _word(width: int) -> torch.dtype:
    """What holds a group of `width` bytes; the longest, eight 7-bit codes, has 56 bits."""
    return torch.uint8 if width == 1 else torch.int64


def _group(bits: int) -> tuple[int, int]:
    """The smallest number of codes that fills whole bytes, and how many bytes those are."""
    common = math.gcd(bits, 8)
    return 8 // common, bits // common
