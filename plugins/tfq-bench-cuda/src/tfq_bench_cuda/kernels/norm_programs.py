"""The kernels of `norms` in Triton. Imported only where they run: a CPU build has no Triton.

What is computed is said in `tfq_bench_cuda.kernels.norm_reference`. Names of sizes: a tile is `BP`
pixels (or rows) by `BC` channels; `C` channels in `GROUPS` groups of `D`. A program of group norm
touches at most `BG` groups. `tables` holds a tuple per reader: codes, 1/scale, zero point, and the
table's last index; `STARTS`, `CHANNELS` and `BITS` a number per reader.

Moments are a mean and a sum of squared deviations from it, never a sum of squares: those of parts
merge exactly (Chan, Golub and LeVeque), and a large mean costs no digits. Sums have a fixed order.
"""

# No `from __future__ import annotations`: Triton reads the annotations of its programs. Arguments
# that are not compiled in have none.
# ruff: noqa: ANN001, ANN201, ANN202

import triton
import triton.language as tl

__all__ = ["group_codes", "group_moments", "layer_codes", "plain_codes"]

# 1.5 * 2^23. A float32 near it has no fraction, so adding it rounds to an integer, half to even;
# and the low bits of the sum are that integer in two's complement.
_ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def _write(
    y, row, inside, channel, step, table,
    START: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """Codes of one table for values `y` float32 `[rows, channels]` of channels `channel`."""
    out, inverse, zero_point, last = table
    PADDED: tl.constexpr = (CHANNELS + 31) // 32 * 32
    now = tl.minimum(step, last)
    lowest = _ROUNDING - 128.0
    rounded = y * tl.load(inverse + now) + _ROUNDING
    moved = rounded + (tl.load(zero_point + now) - 128).to(tl.float32)
    moved = tl.minimum(tl.maximum(moved, lowest), lowest + ((1 << BITS) - 1))
    code = moved.to(tl.int32, bitcast=True).to(tl.int8)
    place = channel - START
    if CHANNELS != PADDED:
        code = tl.where((place < CHANNELS)[None, :], code, 0)
    written = inside[:, None] & ((place >= 0) & (place < PADDED))[None, :]
    tl.store(out + row[:, None] * PADDED + place[None, :], code, mask=written)


@triton.jit(do_not_specialize=["pixels", "span"])
def group_moments(
    x, means, squares, pixels, span,
    C: tl.constexpr, GROUPS: tl.constexpr, OWN: tl.constexpr,
    BG: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Moments of `span` pixels of `OWN` whole groups: float32 `[B, blocks of pixels, GROUPS]`."""
    D: tl.constexpr = C // GROUPS
    block = tl.program_id(0)
    first = tl.program_id(1) * OWN
    image = tl.program_id(2)
    lane = tl.arange(0, BC)
    group = tl.arange(0, BG)
    channel = first * D + lane
    owned = (lane < OWN * D) & (channel < C)
    member = (lane // D)[:, None] == group[None, :]
    x += image.to(tl.int64) * pixels * C
    stop = tl.minimum((block + 1) * span, pixels)
    count = 0.0
    mean = tl.zeros([BG], tl.float32)
    square = tl.zeros([BG], tl.float32)
    for start in range(block * span, stop, BP):
        pixel = start + tl.arange(0, BP)
        inside = (pixel < stop)[:, None] & owned[None, :]
        value = tl.load(x + pixel[:, None] * C + channel[None, :], mask=inside, other=0.0)
        value = value.to(tl.float32)
        # In this tile: the mean of each group, and the deviations of its channels from it.
        added = (tl.minimum(stop - start, BP) * D).to(tl.float32)
        total = tl.sum(value, axis=0)
        tile_mean = tl.sum(tl.where(member, total[:, None], 0.0), axis=0) / added
        centre = tl.sum(tl.where(member, tile_mean[None, :], 0.0), axis=1)
        deviation = tl.where(inside, value - centre[None, :], 0.0)
        total = tl.sum(deviation * deviation, axis=0)
        tile_square = tl.sum(tl.where(member, total[:, None], 0.0), axis=0)
        # Merged with the tiles before.
        share = added / (count + added)
        delta = tile_mean - mean
        mean += delta * share
        square += tile_square + delta * delta * count * share
        count += added
    place = (image * tl.num_programs(0) + block) * GROUPS + first + group
    kept = (group < OWN) & (first + group < GROUPS)
    tl.store(means + place, mean, mask=kept)
    tl.store(squares + place, square, mask=kept)


@triton.jit(do_not_specialize=["pixels", "span", "blocks", "run"])
def group_codes(
    x, weight, bias, means, squares, step, tables, pixels, span, blocks, run, eps,
    STARTS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, SILU: tl.constexpr,
    C: tl.constexpr, GROUPS: tl.constexpr, BLOCKS: tl.constexpr,
    BG: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Codes of `run` pixels of `BC` channels, from the moments of `blocks` blocks of pixels."""
    D: tl.constexpr = C // GROUPS
    image = tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    exists = channel < C
    first = tl.program_id(1) * BC // D
    group = first + tl.arange(0, BG)
    # The blocks' moments become those of the image.
    block = tl.arange(0, BLOCKS)
    known = (block < blocks)[:, None] & (group < GROUPS)[None, :]
    place = (image * blocks + block)[:, None] * GROUPS + group[None, :]
    mean = tl.load(means + place, mask=known, other=0.0)
    square = tl.load(squares + place, mask=known, other=0.0)
    count = (tl.minimum((block + 1) * span, pixels) - block * span) * D
    count = tl.where(block < blocks, count, 0).to(tl.float32)[:, None]
    total = pixels.to(tl.float32) * D
    centre = tl.sum(mean * count, axis=0) / total
    delta = mean - centre[None, :]
    variance = tl.sum(square + delta * delta * count, axis=0) / total
    # The norm is `value * factor + offset` in each channel.
    member = group[:, None] == (channel // D)[None, :]
    deviation = tl.where(member, tl.rsqrt(variance + eps)[:, None], 0.0)
    deviation = tl.sum(deviation, axis=0, keep_dims=True)
    centre = tl.sum(tl.where(member, centre[:, None], 0.0), axis=0, keep_dims=True)
    at = channel[None, :]
    factor = tl.load(weight + at, mask=at < C, other=0.0).to(tl.float32) * deviation
    offset = tl.load(bias + at, mask=at < C, other=0.0).to(tl.float32) - centre * factor
    now = tl.load(step)
    x += image.to(tl.int64) * pixels * C
    begin = tl.program_id(0) * run
    for start in range(begin, tl.minimum(begin + run, pixels), BP):
        pixel = start + tl.arange(0, BP)
        inside = pixel < pixels
        value = tl.load(
            x + pixel[:, None] * C + channel[None, :],
            mask=inside[:, None] & exists[None, :],
            other=0.0,
        )
        y = tl.fma(value.to(tl.float32), factor, offset)
        if SILU:
            # y / (1 + exp(-y)). A squared 1/sqrt is the cheapest reciprocal, right to 3e-7.
            root = tl.rsqrt(1.0 + tl.exp2(y * -1.4426950408889634))
            y = y * root * root
        row = image.to(tl.int64) * pixels + pixel
        for i in tl.static_range(len(tables)):
            _write(y, row, inside, channel, now, tables[i], STARTS[i], CHANNELS[i], BITS[i])


@triton.jit(do_not_specialize=["rows", "image_rows"])
def layer_codes(
    x, weight, bias, scale, shift, scale_stride, shift_stride, step, tables, rows, image_rows, eps,
    STARTS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Codes of `BP` whole rows, each normalized. None stands for what a norm does without."""
    row = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    channel = tl.arange(0, BC)
    inside = row < rows
    exists = inside[:, None] & (channel < C)[None, :]
    value = tl.load(x + row[:, None] * C + channel[None, :], mask=exists, other=0.0)
    value = value.to(tl.float32)
    centre = tl.sum(value, axis=1) / C
    deviation = tl.where(exists, value - centre[:, None], 0.0)
    variance = tl.sum(deviation * deviation, axis=1) / C
    y = deviation * tl.rsqrt(variance + eps)[:, None]
    if weight is not None:
        y *= tl.load(weight + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        y += tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    image = row // image_rows
    if scale is not None:
        place = image[:, None] * scale_stride + channel[None, :]
        y *= 1.0 + tl.load(scale + place, mask=exists, other=0.0).to(tl.float32)
    if shift is not None:
        place = image[:, None] * shift_stride + channel[None, :]
        y += tl.load(shift + place, mask=exists, other=0.0).to(tl.float32)
    now = tl.load(step)
    for i in tl.static_range(len(tables)):
        _write(y, row, inside, channel, now, tables[i], STARTS[i], CHANNELS[i], BITS[i])


@triton.jit(do_not_specialize=["rows"])
def plain_codes(
    x, stride, step, tables, rows,
    STARTS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Codes of `BP` rows of `BC` channels, as they are."""
    row = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = row < rows
    exists = inside[:, None] & (channel < C)[None, :]
    value = tl.load(x + row[:, None] * stride + channel[None, :], mask=exists, other=0.0)
    value = value.to(tl.float32)
    now = tl.load(step)
    for i in tl.static_range(len(tables)):
        _write(value, row, inside, channel, now, tables[i], STARTS[i], CHANNELS[i], BITS[i])
