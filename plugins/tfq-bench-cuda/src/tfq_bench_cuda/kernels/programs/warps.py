"""How a tile is divided among the warps of a thread block."""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.specs import Tile

__all__ = ["warps"]


def warps(tile: Tile, *, whole_rows: bool = False) -> Any:
    """TileLang's policy for a tile; see `Tile.whole_rows`."""
    rows = tile.whole_rows or whole_rows
    return T.GemmWarpPolicy.FullRow if rows else T.GemmWarpPolicy.Square
