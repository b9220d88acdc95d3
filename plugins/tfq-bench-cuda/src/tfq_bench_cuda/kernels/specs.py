"""What identifies a kernel: everything that is compiled in. Sizes that may vary are left out.

Number of rows, images, height, width and sampler steps are arguments of a kernel, so that a batch
of another size or a longer table needs no compilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfq_bench_cuda.kernels.borders import Geometry

__all__ = [
    "ALIGNMENT",
    "ConvSpec",
    "Ending",
    "LinearSpec",
    "ProductSpec",
    "QuantizeSpec",
    "Tile",
    "padded",
]

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
        whole_rows: whether each group of warps multiplies rows of its own by all `n` outputs, which
            reads least of shared memory where an instruction is that wide (`wgmma`); else the
            groups share out rows and outputs.
        resident: thread blocks that a multiprocessor holds at once, so that one multiplies while
            another starts or ends. Their stages must fit beside one another.
        ahead: whether the products of a step start before those of the last one have ended; see
            `programs.ahead`. On sm_90a, and not where pixels are gathered.
    """

    m: int
    n: int
    k: int
    stages: int
    threads: int
    whole_rows: bool = False
    resident: int = 1
    ahead: bool = False

    def __str__(self) -> str:
        words = [f"{self.m}x{self.n}x{self.k}"]
        words += [f"{self.resident} resident"] if self.resident > 1 else []
        words += ["ahead"] if self.ahead else []
        return " ".join(words)


Activation = Literal["", "silu", "gelu", "gelu-tanh", "geglu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What becomes of a sum before it is written, in this order and in float32.

    Args:
        partial: whether a float32 `[M, n]` is added, the sum over the parts before this one.
        shift: whether a float32 `[images, n]` is added to the rows of each image. Neither this nor
            partial goes with `geglu`.
        activation: `geglu` halves the outputs: `value * gelu(gate)`, the weights of all values
            coming first; `gelu` is exact, `gelu-tanh` its approximation.
        gate: whether it is multiplied by a float32 `[images, n]`.
        residual: type of a `[M, n]` that is added, a torch name such as `bfloat16`; empty for none.
        out: type of the result: `float32`, `bfloat16`, `float16`, or `int8` for codes of the next
            product's input, whose rows are n long: n must be a multiple of 32.
        bits: of those codes.
    """

    partial: bool = False
    shift: bool = False
    activation: Activation = ""
    gate: bool = False
    residual: str = ""
    out: str = "float32"
    bits: int = 8

    def __str__(self) -> str:
        words = [self.activation] if self.activation else []
        words += [name for name in ("shift", "gate", "residual") if getattr(self, name)]
        words += ["codes"] if self.out == "int8" else []
        return "+".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSpec:
    """`[M, k]` by `[weights, k]`.

    Args:
        n: outputs.
    """

    n: int
    k: int
    ending: Ending
    tile: Tile

    @property
    def kind(self) -> str:
        """For names."""
        return "linear"

    @property
    def weights(self) -> int:
        """Rows of the weight."""
        return self.n * 2 if self.ending.activation == "geglu" else self.n

    @property
    def terms(self) -> int:
        """Products per sum."""
        return self.k


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvSpec:
    """`[B, H, W, c]` by `[n, kh * kw * c]`. Its ending has no activation.

    Args:
        gather: whether threads read the pixels; else the copy engine does (im2col mode of TMA).
    """

    n: int
    c: int
    geometry: Geometry
    gather: bool
    ending: Ending
    tile: Tile

    @property
    def kind(self) -> str:
        """For names."""
        return "conv2d"

    @property
    def weights(self) -> int:
        """Rows of the weight."""
        return self.n

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
