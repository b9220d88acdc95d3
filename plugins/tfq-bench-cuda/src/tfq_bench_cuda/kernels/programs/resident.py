"""Thread blocks that share a multiprocessor, and so its registers; see `Tile.resident`."""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.specs import Tile

__all__ = ["registers", "resident"]

_REGISTERS = 65_536
"""Of a multiprocessor, on every card that this distribution compiles for."""

_COPYING, _COPIES = 128, 24
"""Threads that copy on Hopper, beside those that multiply, and registers of each."""

_MOST = 240
"""Registers of a thread that multiplies, in steps of 8."""


def registers(tile: Tile) -> tuple[int, int]:
    """Of a thread that copies, and of one that multiplies.

    All threads of a block start with as many; what those that copy give back the others take.
    """
    threads = tile.threads + _COPYING
    each = _REGISTERS // (tile.resident * threads) // 8 * 8
    left = (each * threads - _COPYING * _COPIES) // tile.threads // 8 * 8
    return _COPIES, min(left, _MOST)


def resident(tile: Tile) -> Any:
    """The macro that asks for as many blocks, and for registers that fit them."""
    copies, multiplies = registers(tile)

    @T.macro
    def ask() -> None:
        T.annotate_min_blocks_per_sm(tile.resident)
        T.annotate_producer_reg_dealloc(copies)
        T.annotate_consumer_reg_alloc(multiplies)

    return ask
