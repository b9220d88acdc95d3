"""Tiles that a search tries beyond the small table: other shapes, depths, stages and ways to run.

What cannot run is left out by arithmetic. On an H100 four stages of depth 128 and whole rows for
each group of four warps won for most products, so these come first.
"""

from __future__ import annotations

from dataclasses import replace

from tfq_bench_cuda.kernels.specs import Tile
from tfq_bench_cuda.kernels.tiles import SHARED, candidates

__all__ = ["other_pipelines", "other_shapes", "other_ways"]

# Rows, outputs and threads.
_HOPPER = (
    (192, 160, 384),
    (192, 128, 384),
    (192, 80, 384),
    (128, 256, 256),
    (128, 192, 256),
    (128, 96, 256),
    (128, 32, 256),
    (256, 96, 256),
    (256, 64, 256),
    (64, 256, 128),
    (64, 192, 128),
    (64, 96, 128),
    (64, 80, 128),
)
_AMPERE = (
    (256, 128, 256),
    (128, 256, 256),
    (256, 64, 256),
    (64, 128, 128),
    (128, 32, 128),
    (64, 256, 256),
)
# Depth and stages.
_HOPPER_PIPELINES = ((128, 3), (128, 2), (64, 6), (64, 8), (64, 3), (32, 6))
_AMPERE_PIPELINES = ((64, 4), (64, 2), (32, 4), (32, 3), (128, 2))
# Of two blocks on a multiprocessor: rows, sums of a row and threads; depths and stages.
# Each of their 256 threads has 128 registers until those that copy give theirs back, and the
# assembler wants 26 more than an instruction has sums: wider ones do not compile, nor three blocks.
_SIDE_BY_SIDE = ((128, 160, 128), (128, 128, 128), (64, 160, 128), (64, 128, 128))
_SHARED_PIPELINES = ((128, 3), (64, 5), (128, 2), (64, 4), (64, 3))


def _most_sums(threads: int, arch: str) -> int:
    """Sums that a thread may hold in its registers, 240 on sm_90a, or 160 in thread blocks of 512.

    TileLang adds 128 threads there, which copy. `mma.sync` has its operands in registers too.
    """
    if arch != "sm_90a":
        return 128
    return 160 if threads <= 256 else 96


def other_shapes(
    rows: int, outputs: int, inputs: int, arch: str, *, taps: int = 1, accumulators: int = 1
) -> list[Tile]:
    """The table's tiles and others, the one with the shortest expected time first.

    Args:
        rows, outputs, inputs, arch, taps, accumulators: as for `tiles.candidates`.
    """
    fitting = [
        (m, n, threads)
        for m, n, threads in (_HOPPER if arch == "sm_90a" else _AMPERE)
        if m * n * accumulators <= _most_sums(threads, arch) * threads
    ]
    tiles = candidates(
        rows, outputs, inputs, arch, taps=taps, accumulators=accumulators, more=fitting
    )
    return [tile for tile in tiles if tile.stages >= 2]


def other_pipelines(tile: Tile, inputs: int, arch: str, *, accumulators: int = 1) -> list[Tile]:
    """The same rows and outputs with steps of another depth, and more or fewer of them in flight.

    Fewer leave room for a second thread block on the multiprocessor, which computes while the
    first one writes.
    """
    room = SHARED[arch] * 1024 // tile.resident
    return [
        other
        for depth, stages in (_HOPPER_PIPELINES if arch == "sm_90a" else _AMPERE_PIPELINES)
        if inputs % depth == 0
        and (tile.m + tile.n * accumulators) * depth * stages <= room
        and (other := replace(tile, k=depth, stages=stages)) != tile
    ]


def other_ways(inputs: int, arch: str, *, accumulators: int = 1) -> list[Tile]:
    """Blocks of which two share a multiprocessor, so that one multiplies while the other ends.

    Each in both ways of `Tile.ahead`. Only Hopper's copy engine feeds them, so there are none of
    other architectures.
    """
    if arch != "sm_90a":
        return []
    found = []
    for m, sums, threads in _SIDE_BY_SIDE:
        fitting = [
            (depth, stages)
            for depth, stages in _SHARED_PIPELINES
            if inputs % depth == 0 and 2 * (m + sums) * depth * stages <= SHARED[arch] * 1024
        ]
        if not fitting:
            continue
        depth, stages = fitting[0]
        n = sums // accumulators
        one = Tile(m=m, n=n, k=depth, stages=stages, threads=threads, whole_rows=True, resident=2)
        found += [one, replace(one, ahead=True)]
    return found
