"""Tiles that a search found faster than the model of their time, by architecture and shape.

`tfq-bench-cuda tune` on an H100 SXM, the products of SD-XL at 1024 pixels with two rows; of those
that it tried, the others kept the tile that the model had chosen.
"""

from __future__ import annotations

from typing import Any

from tfq_bench_cuda.kernels.specs import Tile
from tfq_bench_cuda.kernels.tuned import Shape

__all__ = ["SEARCHED"]


def _tile(m: int, n: int, k: int, stages: int, threads: int = 256, **more: Any) -> Tile:
    return Tile(m=m, n=n, k=k, stages=stages, threads=threads, whole_rows=True, **more)


SEARCHED: dict[str, dict[Shape, Tile]] = {
    "sm_90a": {
        # Queries, keys and values.
        (2048, 3840, 1280, 1, 1): _tile(128, 128, 128, 3, threads=128, resident=2),
        # GEGLU.
        (2048, 5120, 1280, 1, 2): _tile(128, 160, 128, 3),
        (8192, 2560, 640, 1, 2): _tile(128, 64, 128, 3, threads=128, resident=2, ahead=True),
        # With a residual that fits beside the sums in registers.
        (8192, 640, 640, 1, 1): _tile(128, 160, 128, 3),
        (8192, 640, 2560, 1, 1): _tile(128, 160, 128, 4),
        # 3x3 convolutions.
        (32768, 320, 320, 9, 1): _tile(256, 160, 64, 8),
        (32768, 320, 640, 9, 1): _tile(192, 160, 128, 4, threads=384),
    },
}
