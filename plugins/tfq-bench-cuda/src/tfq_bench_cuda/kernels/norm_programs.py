"""The kernels of `norms` in Triton. Imported only where they run: a CPU build has no Triton.

What is computed is said in `tfq_bench_cuda.kernels.norm_reference`. Names of sizes: a tile is `BP`
pixels (or rows) by `BC` channels; `C` channels in `GROUPS` groups of `D`. A program of group norm
touches at most `BG` groups. `tables` holds a tuple per reader: codes, 1/scale, zero point, and the
table's last index; `STARTS`, `CHANNELS` and `BITS` a number per reader. Of a concatenation `x`
holds the `FIRST` channels and `beside` the others.

Moments are a mean and a sum of squared deviations from it. Squares are summed only of distances
from a value of the same channel, so that a large mean costs no digits; moments of parts merge
exactly (Chan, Golub and LeVeque). Sums have a fixed order.
"""

# No `from __future__ import annotations`: Triton reads the annotations of its programs. Arguments
# that are not compiled in have none.
# ruff: noqa: ANN001, ANN201, ANN202, RET505

import triton
import triton.language as tl

__all__ = ["code", "group_codes", "group_moments", "layer_codes", "plain_codes"]

# 1.5 * 2^23. A float32 near it has no fraction, so adding it rounds to an integer, half to even;
# and the low bits of the sum are that integer in two's complement.
_ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def _scales(step, tables):
    """1/scale and zero point of every table at the step: asked for early, they come in time."""
    now = tl.load(step)
    found = ()
    for i in tl.static_range(len(tables)):
        _, inverse, zero_point, last = tables[i]
        at = tl.minimum(now, last)
        found += ((tl.load(inverse + at), (tl.load(zero_point + at) - 128).to(tl.float32)),)
    return found


@triton.jit
def code(y, inverse, zero_point, BITS: tl.constexpr):
    """int8 codes of float32 values as the simulation rounds them; the zero point is less 128."""
    lowest = _ROUNDING - 128.0
    moved = y * inverse + _ROUNDING + zero_point
    moved = tl.minimum(tl.maximum(moved, lowest), lowest + ((1 << BITS) - 1))
    return moved.to(tl.int32, bitcast=True).to(tl.int8)


@triton.jit
def _write(
    y, row, inside, channel, scales, table,
    START: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Codes of one table for values `y` float32 `[rows, channels]` of channels `channel`.

    TIES: how values halfway between two codes round. "even": to the even one before the zero
    point, as in the simulation. Others round what has the zero point in it: "sum", and "fused"
    with one rounding less. What a norm computes lies on no tie but by chance.
    """
    inverse, zero_point = scales
    PADDED: tl.constexpr = (CHANNELS + 31) // 32 * 32
    lowest = _ROUNDING - 128.0
    if TIES == "even":
        moved = y * inverse + _ROUNDING + zero_point
    elif TIES == "sum":
        moved = y * inverse + (zero_point + _ROUNDING)
    else:
        moved = tl.fma(y, inverse, zero_point + _ROUNDING)
    moved = tl.minimum(tl.maximum(moved, lowest), lowest + ((1 << BITS) - 1))
    code = moved.to(tl.int32, bitcast=True).to(tl.int8)
    place = channel - START
    if CHANNELS != PADDED:
        code = tl.where((place < CHANNELS)[None, :], code, 0)
    written = inside[:, None] & ((place >= 0) & (place < PADDED))[None, :]
    tl.store(table[0] + row[:, None] * PADDED + place[None, :], code, mask=written)


@triton.jit
def _places(x, beside, row, channel, stride, C: tl.constexpr, FIRST: tl.constexpr):
    """Pointers to channels of rows; those from `FIRST` on lie in `beside`, unless it is None."""
    place = x + row * stride + channel
    if beside is None:
        return place
    else:
        return tl.where(channel < FIRST, place, beside + row * (C - FIRST) + (channel - FIRST))


@triton.jit
def _pixels(
    x, beside, start, stop, channel, known, other,
    C: tl.constexpr, FIRST: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """`BP` pixels from `start` on; `other` beyond `stop`, and in channels that are not `known`."""
    pixel = start + tl.arange(0, BP)
    inside = (pixel < stop)[:, None] & known[None, :]
    place = _places(x, beside, pixel[:, None], channel[None, :], FIRST, C, FIRST)
    return tl.load(place, mask=inside, other=other)


@triton.jit(do_not_specialize=["pixels", "span", "blocks"])
def group_moments(
    x, beside, means, squares, pixels, span, blocks,
    C: tl.constexpr, FIRST: tl.constexpr, GROUPS: tl.constexpr, OWN: tl.constexpr,
    BG: tl.constexpr, DEEP: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Moments of `span` pixels of `OWN` whole groups: float32 `[B, GROUPS, blocks of pixels]`.

    Each thread adds up what it reads, `DEEP` tiles at a time; threads meet once, at the end.
    """
    D: tl.constexpr = C // GROUPS
    block = tl.program_id(0)
    first = tl.program_id(1) * OWN
    image = tl.program_id(2)
    lane = tl.arange(0, BC)
    channel = first * D + lane
    owned = (lane < OWN * D) & (channel < C)
    # Triton 3.6 takes no None back from a function.
    x += image.to(tl.int64) * pixels * FIRST
    if beside is not None:
        beside += image.to(tl.int64) * pixels * (C - FIRST)
    begin = block * span
    stop = tl.minimum(begin + span, pixels)
    # A channel is measured from its first value here: the square of what is taken off again at the
    # end is at most the number of pixels times what remains.
    origin = _places(x, beside, begin, channel, FIRST, C, FIRST)
    origin = tl.load(origin[None, :], mask=owned[None, :], other=0.0)
    total = tl.zeros([BP, BC], tl.float32)
    square = tl.zeros([BP, BC], tl.float32)
    # The loop carries tiles that are on their way: a compiler would else ask for one at a time.
    coming = ()
    for i in tl.static_range(DEEP):
        start = begin + i * BP
        coming += (_pixels(x, beside, start, stop, channel, owned, origin, C, FIRST, BP),)
    for start in range(begin + DEEP * BP, stop + DEEP * BP, DEEP * BP):
        after = ()
        for i in tl.static_range(DEEP):
            value = coming[i].to(tl.float32) - origin.to(tl.float32)
            at = start + i * BP
            after += (_pixels(x, beside, at, stop, channel, owned, origin, C, FIRST, BP),)
            total += value
            square += value * value
        coming = after
    # Channels: mean and deviations. Their moments merge to those of groups.
    count = (stop - begin).to(tl.float32)
    total, square = tl.split(tl.sum(tl.join(total, square), axis=0))
    moved = total / count
    square -= total * moved
    centre = _places(x, beside, begin, channel, FIRST, C, FIRST)
    centre = tl.load(centre, mask=owned, other=0.0).to(tl.float32) + moved
    group = tl.arange(0, BG)[None, :]
    member = (lane // D)[:, None] == group
    mean = tl.sum(tl.where(member, centre[:, None], 0.0), axis=0, keep_dims=True) / D
    delta = centre[:, None] - mean
    square = tl.where(member, square[:, None] + delta * delta * count, 0.0)
    square = tl.sum(square, axis=0, keep_dims=True)
    place = (image * GROUPS + first + group) * blocks + block
    kept = (group < OWN) & (first + group < GROUPS)
    tl.store(means + place, mean, mask=kept)
    tl.store(squares + place, square, mask=kept)


@triton.jit(do_not_specialize=["pixels", "span", "blocks", "run"])
def group_codes(
    x, beside, weight, bias, means, squares, step, tables, pixels, span, blocks, run, eps,
    STARTS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, SILU: tl.constexpr,
    C: tl.constexpr, FIRST: tl.constexpr, GROUPS: tl.constexpr, BLOCKS: tl.constexpr,
    BG: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Codes of `run` pixels of `BC` channels, from the moments of `blocks` blocks of pixels."""
    D: tl.constexpr = C // GROUPS
    image = tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    # Triton 3.6 takes no None back from a function.
    x += image.to(tl.int64) * pixels * FIRST
    if beside is not None:
        beside += image.to(tl.int64) * pixels * (C - FIRST)
    begin = tl.program_id(0) * run
    stop = tl.minimum(begin + run, pixels)
    # Two tiles are on their way while one is computed: a compiler asks for the last as late as it
    # can.
    exists = channel < C
    coming = _pixels(x, beside, begin, stop, channel, exists, 0.0, C, FIRST, BP)
    following = _pixels(x, beside, begin + BP, stop, channel, exists, 0.0, C, FIRST, BP)
    scales = _scales(step, tables)
    first = tl.program_id(1) * BC // D
    group = first + tl.arange(0, BG)
    # The blocks' moments become those of the image.
    block = tl.arange(0, BLOCKS)
    known = (group < GROUPS)[:, None] & (block < blocks)[None, :]
    place = (image * GROUPS + group)[:, None] * blocks + block[None, :]
    mean = tl.load(means + place, mask=known, other=0.0)
    square = tl.load(squares + place, mask=known, other=0.0)
    count = (tl.minimum((block + 1) * span, pixels) - block * span) * D
    count = tl.where(block < blocks, count, 0).to(tl.float32)[None, :]
    total = pixels.to(tl.float32) * D
    centre = tl.sum(mean * count, axis=1) / total
    delta = mean - centre[:, None]
    variance = tl.sum(square + delta * delta * count, axis=1) / total
    # The norm is `value * factor + offset` in each channel.
    own = tl.minimum(channel // D - first, BG - 1)
    deviation = tl.gather(tl.rsqrt(variance + eps), own, axis=0)
    centre = tl.gather(centre, own, axis=0)
    factor = tl.load(weight + channel, mask=exists, other=0.0).to(tl.float32) * deviation
    offset = tl.load(bias + channel, mask=exists, other=0.0).to(tl.float32) - centre * factor
    for start in range(begin, stop, BP):
        value = coming.to(tl.float32)
        coming = following
        ahead = start + 2 * BP
        following = _pixels(x, beside, ahead, stop, channel, exists, 0.0, C, FIRST, BP)
        y = tl.fma(value, factor[None, :], offset[None, :])
        if SILU:
            # y / (1 + exp(-y)). A squared 1/sqrt is the cheapest reciprocal, right to 3e-7.
            root = tl.rsqrt(1.0 + tl.exp2(y * -1.4426950408889634))
            y = y * root * root
        pixel = start + tl.arange(0, BP)
        inside = pixel < stop
        row = image.to(tl.int64) * pixels + pixel
        for i in tl.static_range(len(tables)):
            _write(
                y, row, inside, channel, scales[i], tables[i],
                STARTS[i], CHANNELS[i], BITS[i], "fused",
            )  # fmt: skip


@triton.jit
def _row_sums(value):
    """`[rows, 1]`; of one row a scalar: unlike a tensor it has no layout that tiles must share."""
    if value.shape[0] == 1:
        return tl.sum(value)
    else:
        return tl.sum(value, axis=1, keep_dims=True)


@triton.jit
def _asked(weight, bias, scale, shift, scale_stride, shift_stride, image, channel, C: tl.constexpr):
    """What a norm is multiplied by and what is added, of channels and of images; 0 for nothing.

    Asked for before the sums, where threads wait for each other: they come while these are made.
    """
    known = (channel < C)[None, :]
    at = channel[None, :]
    found = (0.0, 0.0, 0.0, 0.0)
    if weight is not None:
        found = (tl.load(weight + at, mask=known, other=0.0), 0.0, 0.0, 0.0)
    if bias is not None:
        found = (found[0], tl.load(bias + at, mask=known, other=0.0), 0.0, 0.0)
    if scale is not None:
        place = image[:, None] * scale_stride + at
        found = (found[0], found[1], tl.load(scale + place, mask=known, other=0.0), 0.0)
    if shift is not None:
        place = image[:, None] * shift_stride + at
        loaded = tl.load(shift + place, mask=known, other=0.0)
        found = (found[0], found[1], found[2], loaded)
    return found


@triton.jit
def _modulated(y, weight, bias, scale, shift, asked):
    """A normalized tile times weights plus biases, as `_asked` loaded them."""
    if weight is not None:
        y *= asked[0].to(tl.float32)
    if bias is not None:
        y += asked[1].to(tl.float32)
    if scale is not None:
        y *= 1.0 + asked[2].to(tl.float32)
    if shift is not None:
        y += asked[3].to(tl.float32)
    return y


@triton.jit(do_not_specialize=["rows", "image_rows"])
def layer_codes(
    x, weight, bias, scale, shift, scale_stride, shift_stride, step, tables, rows, image_rows, eps,
    STARTS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """Codes of `BP` whole rows, each normalized. None stands for what a norm does without.

    One row, where `BP` is 1, may be two tiles: 1280 channels are `BC` 1024 and `TAIL` 256.
    """
    row = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    inside = row < rows
    image = tl.where(inside, row // image_rows, 0)
    channel = tl.arange(0, BC)
    exists = inside[:, None] & (channel < C)[None, :]
    value = tl.load(x + row[:, None] * C + channel[None, :], mask=exists, other=0.0)
    if TAIL > 0:
        more = BC + tl.arange(0, TAIL)
        there = inside[:, None] & (more < C)[None, :]
        rest = tl.load(x + row[:, None] * C + more[None, :], mask=there, other=0.0)
    asked = _asked(weight, bias, scale, shift, scale_stride, shift_stride, image, channel, C)
    if TAIL > 0:
        asked_more = _asked(
            weight, bias, scale, shift, scale_stride, shift_stride, image, more, C
        )  # fmt: skip
    scales = _scales(step, tables)
    value = value.to(tl.float32)
    centre = _row_sums(value)
    if TAIL > 0:
        rest = rest.to(tl.float32)
        centre += _row_sums(rest)
    centre = centre / C
    value -= centre
    if BC > C:
        value = tl.where(exists, value, 0.0)
    variance = _row_sums(value * value)
    if TAIL > 0:
        rest -= centre
        if BC + TAIL > C:
            rest = tl.where(there, rest, 0.0)
        variance += _row_sums(rest * rest)
    factor = tl.rsqrt(variance / C + eps)
    y = _modulated(value * factor, weight, bias, scale, shift, asked)
    for i in tl.static_range(len(tables)):
        _write(
            y, row, inside, channel, scales[i], tables[i], STARTS[i], CHANNELS[i], BITS[i], "sum"
        )
    if TAIL > 0:
        y = _modulated(rest * factor, weight, bias, scale, shift, asked_more)
        for i in tl.static_range(len(tables)):
            _write(
                y, row, inside, more, scales[i], tables[i], STARTS[i], CHANNELS[i], BITS[i], "sum"
            )


@triton.jit(do_not_specialize=["rows"])
def plain_codes(
    x, stride, beside, step, tables, rows,
    STARTS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr,
    C: tl.constexpr, FIRST: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Codes of `BP` rows of `BC` channels, as they are."""
    row = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = row < rows
    exists = inside[:, None] & (channel < C)[None, :]
    place = _places(x, beside, row[:, None], channel[None, :], stride, C, FIRST)
    value = tl.load(place, mask=exists, other=0.0)
    scales = _scales(step, tables)
    value = value.to(tl.float32)
    for i in tl.static_range(len(tables)):
        _write(
            value, row, inside, channel, scales[i], tables[i],
            STARTS[i], CHANNELS[i], BITS[i], "even",
        )  # fmt: skip
