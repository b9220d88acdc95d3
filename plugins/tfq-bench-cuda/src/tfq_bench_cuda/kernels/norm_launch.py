"""How the Triton kernels of `norms` are cut into programs, and their launch.

Tiles depend on channels and groups, the number of partial moments on the number of pixels; neither
depends on the batch, which is only in the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tfq_bench_cuda.kernels import norm_programs as programs
from tfq_bench_cuda.kernels.norm_reference import Table
from tfq_bench_cuda.kernels.specs import padded

__all__ = [
    "apply_width",
    "group_norm_codes",
    "layer_norm_codes",
    "moments_groups",
    "moments_span",
    "row_codes",
    "row_tiles",
]

MOMENTS_WARPS, MOMENTS_TILE, MOMENTS_DEEP = 8, 2048, 4
"""Threads that take moments read 16 bytes of a tile (two bytes a value), and of so many at once."""
APPLY_TILE, APPLY_WARPS = 4096, 8
"""Values of a group norm that a program quantizes at once, 16 a thread, which it stores at once."""
LAYER_TILE = 512
"""Channels of a layer norm per warp, 16 a thread; a warp has as many rows as fit."""
ROWS_TILE, ROWS_WARPS = 4096, 4
"""Values of rows that a program quantizes at once."""
PROGRAMS = 396
"""The most programs among which the pixels of a group norm are divided: as many as an H100 runs at
once, 3 on each multiprocessor. More would sum up the partial moments more often."""
MOST_BLOCKS = 64
"""Blocks of pixels per image, whose moments each program of the second kernel adds up."""
_MOST_TABLES = 3
"""Tables that one kernel writes."""


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
    """See `tfq_bench_cuda.kernels.norms.group_norm_codes`."""
    images, pixels, first = x.shape
    channels = first + _width(beside)
    own = moments_groups(channels, groups)
    width = _power(own * (channels // groups))
    height = max(1, min(MOMENTS_TILE // width, _power(pixels)))
    deep = min(MOMENTS_DEEP, _power(-(-pixels // height)))
    span = moments_span(pixels, height * deep)
    blocks = -(-pixels // span)
    means = torch.empty((images, groups, blocks), dtype=torch.float32, device=x.device)
    squares = torch.empty_like(means)
    programs.group_moments[(blocks, -(-groups // own), images)](
        x, beside, means, squares, pixels, span, blocks,
        C=channels, FIRST=first, GROUPS=groups, OWN=own, BG=_power(own),
        DEEP=deep, BP=height, BC=width,
        **_options(MOMENTS_WARPS),
    )  # fmt: skip
    found = []
    for some in _launches(tables):
        width = apply_width(_extent(channels, some))
        columns = -(-_extent(channels, some) // width)
        height = min(APPLY_TILE // width, _power(pixels))
        tiles = -(-pixels // height)
        run = height * -(-tiles * columns * images // PROGRAMS)
        codes, arguments, constants = _outputs(x, some)
        programs.group_codes[(-(-pixels // run), columns, images)](
            x, beside, weight, bias, means, squares, step, arguments,
            pixels, span, blocks, run, eps,
            SILU=silu, C=channels, FIRST=first, GROUPS=groups, BLOCKS=_power(blocks),
            BG=_power(_most_groups(channels, groups, width)), BP=height, BC=width,
            **constants, **_options(APPLY_WARPS),
        )  # fmt: skip
        found += codes
    return found


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
    """See `tfq_bench_cuda.kernels.norms.layer_norm_codes`."""
    images, length, channels = x.shape
    found = []
    for some in _launches(tables):
        head, tail = row_tiles(_extent(channels, some))
        height = max(1, LAYER_TILE // head)
        codes, arguments, constants = _outputs(x, some)
        programs.layer_codes[(-(-images * length // height),)](
            x, weight, bias, scale, shift, _stride(scale), _stride(shift), step, arguments,
            images * length, length, eps,
            C=channels, BP=height, BC=head, TAIL=tail, **constants,
            **_options(min(8, max(1, head // LAYER_TILE))),
        )  # fmt: skip
        found += codes
    return found


def row_codes(
    x: Tensor, *, step: Tensor, tables: Sequence[Table], beside: Tensor | None = None
) -> list[Tensor]:
    """See `tfq_bench_cuda.kernels.norms.row_codes`."""
    found = []
    channels = x.shape[1] + _width(beside)
    for some in _launches(tables):
        width = apply_width(_extent(channels, some))
        height = ROWS_TILE // width
        codes, arguments, constants = _outputs(x, some)
        grid = (-(-len(x) // height), -(-_extent(channels, some) // width))
        programs.plain_codes[grid](
            x, x.stride(0), beside, step, arguments, len(x),
            C=channels, FIRST=x.shape[1], BP=height, BC=width, **constants, **_options(ROWS_WARPS),
        )  # fmt: skip
        found += codes
    return found


def moments_groups(channels: int, groups: int) -> int:
    """Whole groups per program: few empty lanes in a tile whose width is a power of two.

    Tiles are 64 to 256 channels wide where groups allow it, and begin at multiples of 16 bytes
    where they can, so that eight two-byte values are loaded at once.
    """
    size = channels // groups

    def cost(own: int) -> tuple[bool, int, int]:
        width = _power(own * size)
        lanes = -(-groups // own) * width
        return own * size % 8 != 0 and own != groups, lanes, abs(width - 128)

    fitting = [own for own in range(1, groups + 1) if 64 <= _power(own * size) <= 256]
    return min(fitting or [1 if size > 64 else groups], key=cost)


def moments_span(pixels: int, rows: int) -> int:
    """Pixels per program, whole loops of `rows`: a program's start and end cost two such loops.

    So there are up to four, as long as eight blocks of an image are left for the multiprocessors.
    """
    loops = max(1, min(4, pixels // (8 * rows)))
    return rows * max(loops, -(-pixels // (rows * MOST_BLOCKS)))


def row_tiles(channels: int) -> tuple[int, int]:
    """Widths of a row's tiles, powers of two: 1024 and 256 for 1280; 0 where one is as good."""
    whole = _power(channels)
    rest = _power(channels - whole // 2)
    return (whole, 0) if whole <= LAYER_TILE or rest == whole // 2 else (whole // 2, rest)


def apply_width(channels: int) -> int:
    """Channels per program: the power of two with the fewest empty lanes, the widest of these."""
    return min((256, 128, 64, 32), key=lambda width: -(-channels // width) * width)


def _most_groups(channels: int, groups: int, width: int) -> int:
    """The most groups that a block of `width` channels touches."""
    size = channels // groups
    starts = range(0, channels, width)
    return max((min(at + width, channels) - 1) // size - at // size + 1 for at in starts)


def _extent(channels: int, tables: Sequence[Table]) -> int:
    """Channels that programs walk over: those of the input, and those that fill up the codes."""
    return max(channels, *(table.start + padded(table.channels) for table in tables))


def _launches(tables: Sequence[Table]) -> list[Sequence[Table]]:
    return [tables[at : at + _MOST_TABLES] for at in range(0, len(tables), _MOST_TABLES)]


def _outputs(
    x: Tensor, tables: Sequence[Table]
) -> tuple[list[Tensor], tuple[Any, ...], dict[str, tuple[int, ...]]]:
    """Memory for the codes, and what a kernel is told of its tables: arguments and constants."""
    codes = [
        torch.empty((*x.shape[:-1], padded(t.channels)), dtype=torch.int8, device=x.device)
        for t in tables
    ]
    arguments = tuple(
        (code, table.inverse, table.zero_point, len(table.inverse) - 1)
        for code, table in zip(codes, tables, strict=True)
    )
    constants = {
        "STARTS": tuple(table.start for table in tables),
        "CHANNELS": tuple(table.channels for table in tables),
        "BITS": tuple(table.bits for table in tables),
    }
    return codes, arguments, constants


def _options(warps: int) -> dict[str, Any]:
    """A product and a sum round one after the other, as in the simulation: none is fused."""
    return {"num_warps": warps, "enable_fp_fusion": False}


def _power(number: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << (number - 1).bit_length()


def _width(beside: Tensor | None) -> int:
    return 0 if beside is None else beside.shape[-1]


def _stride(rows: Tensor | None) -> int:
    return 0 if rows is None else rows.stride(0)
