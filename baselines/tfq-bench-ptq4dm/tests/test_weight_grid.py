"""The weight grid against its definition, one channel, zero point and clip at a time."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import QuantizationError
from tfq_bench_ptq4dm.ranges import weight_grid


@pytest.fixture
def rows() -> torch.Tensor:
    """Channels of normal and of heavy-tailed weights, float32 `[8, 60]`."""
    normal = torch.randn(8, 60, generator=torch.Generator().manual_seed(0))
    return torch.cat([normal[:4], normal[4:] ** 3])


def _rounded(channel: list[float], scale: float, zero_point: int, bits: int) -> list[float]:
    top = 2**bits - 1
    codes = [min(max(round(w / scale) + zero_point, 0), top) for w in channel]
    return [scale * (code - zero_point) for code in codes]


def _error(channel: list[float], rounded: list[float], power: float) -> float:
    return sum(abs(a - b) ** power for a, b in zip(channel, rounded, strict=True))


def _by_definition(channel: list[float], bits: int) -> tuple[float, int]:
    """Scale and zero point: the best clip (power 2.4) for each zero point, then the better one.

    Where no code is cut off both are equally good, and the upper one counts.
    """
    found = []
    for zero_point in (2 ** (bits - 1), 2 ** (bits - 1) - 1):
        clips = [max(map(abs, channel)) * percent / 100 for percent in range(1, 101)]
        scales = [2 * clip / (2**bits - 1) for clip in clips]
        best = min(
            scales, key=lambda s: _error(channel, _rounded(channel, s, zero_point, bits), 2.4)
        )
        error = _error(channel, _rounded(channel, best, zero_point, bits), 2.0)
        found.append((error, best, zero_point))
    return min(found, key=lambda one: one[0])[1:]


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_grid_is_the_one_of_the_definition(rows, bits):
    """Scale 2c / (2^b - 1), and whichever zero point beside the middle has the lower error."""
    scale, zero_point = weight_grid(rows, bits)
    expected = [_by_definition(channel, bits) for channel in rows.double().tolist()]
    assert [s for s, _ in expected] == pytest.approx(scale.tolist(), rel=1e-6)
    assert [z for _, z in expected] == zero_point.tolist()
    assert 2 == len(set(zero_point.tolist()))


def test_eight_bits_keep_128(rows):
    """Code 255 less 127 would not fit int8."""
    scale, zero_point = weight_grid(rows, 8)
    assert {128} == set(zero_point.tolist())
    channel = rows[0].double().tolist()
    scales = [2 * max(map(abs, channel)) * percent / 100 / 255 for percent in range(1, 101)]
    best = min(_error(channel, _rounded(channel, s, 128, 8), 2.4) for s in scales)
    found = _error(channel, _rounded(channel, float(scale[0]), 128, 8), 2.4)
    assert best == pytest.approx(found, rel=1e-4)


def test_mirrored_weights_get_the_other_zero_point(rows):
    """-w is as well off as w: no sign is preferred."""
    scale, zero_point = weight_grid(rows, 4)
    other_scale, other = weight_grid(-rows, 4)
    assert torch.equal(scale, other_scale)
    assert {15} == set((zero_point + other).tolist())


def test_zeros_and_nan():
    """A channel of zeros is exact with scale 1; NaN is refused."""
    scale, zero_point = weight_grid(torch.zeros(1, 4), 4)
    assert (1.0, 8) == (scale.item(), zero_point.item())
    with pytest.raises(QuantizationError, match="finite"):
        weight_grid(torch.full((1, 4), torch.nan), 4)
