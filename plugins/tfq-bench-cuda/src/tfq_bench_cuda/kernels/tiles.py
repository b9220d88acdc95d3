"""Which tile a product gets: a small table per architecture, and a model of the time that it takes.

Work goes out in waves of one thread block per multiprocessor, so a product takes its number of
waves times the time of one block. Widths of 160 are there because the channels of SD-XL are
multiples of 320: on 132 multiprocessors powers of two leave up to a third of the last wave idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfq_bench_cuda.kernels.searched import SEARCHED
from tfq_bench_cuda.kernels.specs import Ending, Tile
from tfq_bench_cuda.kernels.tuned import found_by_search

__all__ = ["ARCHITECTURES", "SHARED", "TileChoice", "candidates", "choose_tile"]

ARCHITECTURES = {(8, 0): "sm_80", (8, 6): "sm_86", (8, 9): "sm_89", (9, 0): "sm_90a"}
"""Compute capability and what is compiled for it."""

# Rows, outputs and threads. Measured on an H100.
_HOPPER = (
    (256, 160, 256),
    (128, 160, 256),
    (256, 128, 256),
    (256, 80, 256),
    (128, 128, 256),
    (128, 80, 256),
    (64, 160, 128),
    (128, 64, 256),
    (64, 128, 128),
    (64, 64, 128),
    (64, 32, 128),
)
# Not measured: these compile, and leave room for two thread blocks on a multiprocessor.
_AMPERE = ((128, 128, 256), (128, 64, 128), (64, 64, 128), (64, 32, 128))

# Of a product with two sums an output, whose registers hold twice as many: at most 160 sums a
# thread, and whole rows of them for each group of four warps. 64x32 gave zeros on an H100.
_HOPPER_PAIRED = (
    (128, 160, 256),
    (256, 80, 256),
    (128, 128, 256),
    (128, 96, 256),
    (128, 80, 256),
    (128, 64, 256),
    (64, 160, 128),
    (64, 64, 128),
)
_AMPERE_PAIRED = ((128, 64, 256), (64, 64, 128), (64, 32, 128))

SHARED = {"sm_80": 160, "sm_86": 96, "sm_89": 96, "sm_90a": 208}
"""KiB of shared memory that the stages of a thread block may fill; a little less than there is."""

_MULTIPROCESSORS = {"sm_80": 108, "sm_86": 84, "sm_89": 128, "sm_90a": 132}
"""Of A100, RTX 3090 and A10 class, RTX 4090, and H100 SXM. Another number costs time, no digit."""

# What a thread block takes beside its products, in units of one product: each operand that comes
# into shared memory, each output that is ended and written, and the start. Fitted to 90 products of
# SD-XL's shapes on an H100; of other cards taken over.
_OPERAND, _OUTPUT, _START = 26, 640, 18e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TileChoice:
    """Chooses the tiles of a layer's products.

    Args:
        arch: a value of `ARCHITECTURES`.
        rows: of the product, for the number of images that is expected.
    """

    arch: str
    rows: int

    def __call__(self, outputs: int, inputs: int, ending: Ending, *, taps: int = 1) -> Tile:
        """The tile that a search found, on this machine or in `searched`, else by `choose_tile`.

        Args:
            inputs, taps: as for `choose_tile`.
        """
        accumulators = 2 if ending.activation == "geglu" else 1
        shape = (self.rows, outputs, inputs, taps, accumulators)
        found = found_by_search(self.arch, shape) or SEARCHED.get(self.arch, {}).get(shape)
        if found is not None:
            return found
        return choose_tile(
            self.rows, outputs, inputs, self.arch, taps=taps, accumulators=accumulators
        )


def choose_tile(
    rows: int, outputs: int, inputs: int, arch: str, *, taps: int = 1, accumulators: int = 1
) -> Tile:
    """The tile for a product of `rows` by `outputs` whose input channels are `inputs`.

    Args:
        inputs: of one tap of a filter, a multiple of 32. A step must not straddle two taps.
        arch: a value of `ARCHITECTURES`.
        taps: of the filter.
        accumulators: sums that an output is made of: 2 for a GEGLU, else 1.
    """
    return candidates(rows, outputs, inputs, arch, taps=taps, accumulators=accumulators)[0]


def candidates(
    rows: int,
    outputs: int,
    inputs: int,
    arch: str,
    *,
    taps: int = 1,
    accumulators: int = 1,
    more: Sequence[tuple[int, int, int]] = (),
) -> list[Tile]:
    """All tiles for such a product, the one with the shortest expected time first.

    Args:
        more: rows, outputs and threads of others, besides those of the table.
    """
    hopper = arch == "sm_90a"
    depth = next(k for k in ((128, 64, 32) if hopper else (64, 32)) if inputs % k == 0)

    if accumulators == 2:
        shapes = _HOPPER_PAIRED if hopper else _AMPERE_PAIRED
    else:
        shapes = _HOPPER if hopper else _AMPERE

    def cost(shape: tuple[int, int, int]) -> tuple[float, int]:
        m, n = shape[0], shape[1] * accumulators
        blocks = -(-rows // m) * -(-outputs // shape[1])
        waves = -(-blocks // _MULTIPROCESSORS[arch])
        block = inputs * taps * (m * n + _OPERAND * (m + n)) + _OUTPUT * m * n + _START
        return waves * block, m * n

    tiles = []
    for m, n, threads in sorted(dict.fromkeys((*shapes, *more)), key=cost):
        bytes_per_stage = (m + n * accumulators) * depth
        stages = min(SHARED[arch] * 1024 // bytes_per_stage, 4 if hopper else 3)
        tiles.append(Tile(m=m, n=n, k=depth, stages=stages, threads=threads, whole_rows=hopper))
    return tiles
