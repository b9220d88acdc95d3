"""What identifies a kernel: everything that is compiled in. Sizes that may vary are left out.

Number of rows, images, height, width and sampler steps are arguments of a kernel, so that a batch
of another size or a longer table needs no compilation.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfq_bench_cuda.kernels.borders import Geometry

__all__ = ["ALIGNMENT", "ConvSpec", "LinearSpec", "ProductSpec", "QuantizeSpec", "Tile", "padded"]

ALIGNMENT = 32
"""Input channels are filled up to a multiple of this: the depth of an int8 tensor-core product."""


def padded(channels: int) -> int:
    """`channels` rounded up to what the kernels take; those added hold zeros."""
    return -(-channels // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What one thread block computes: `m` rows by `n` outputs, `k` inputs at a time.

    Args:
        stages: how many steps of `k` are in flight.
    """

    m: int
    n: int
    k: int
    stages: int
    threads: int

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSpec:
    """`[M, k]` by `[n, k]`.

    Args:
        out: dtype of the result, a torch name such as `float32`.
        residual: whether a float32 `[M, n]` is added before the result is rounded to `out`.
    """

    n: int
    k: int
    out: str
    residual: bool
    tile: Tile

    @property
    def kind(self) -> str:
        """For names."""
        return "linear"

    @property
    def terms(self) -> int:
        """Products per sum."""
        return self.k


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvSpec:
    """`[B, H, W, c]` by `[n, kh * kw * c]`.

    Args:
        gather: whether threads read the pixels; else the copy engine does (im2col mode of TMA).
        out, residual: as in `LinearSpec`.
    """

    n: int
    c: int
    geometry: Geometry
    gather: bool
    out: str
    residual: bool
    tile: Tile

    @property
    def kind(self) -> str:
        """For names."""
        return "conv2d"

    @property
    def terms(self) -> int:
        """Products per sum."""
        return self.c * self.geometry.kernel[0] * self.geometry.kernel[1]


ProductSpec = LinearSpec | ConvSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSpec:
    """Float channels [start, start + channels) of `total` to codes with channels last.

    Args:
        planes: whether the input is `[B, total, L]`, else `[M, total]`; the codes are
            `[B, L, padded]` and `[M, padded]`.
        dtype: of the input, a torch name.
        bits: of the codes, 2 to 8.
    """

    planes: bool
    total: int
    start: int
    channels: int
    dtype: str
    bits: int

    @property
    def padded(self) -> int:
        """Channels of the codes."""
        return padded(self.channels)
