"""The clip search against a plain loop, and the moving average against its recurrence."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import CalibrationError
from tfq_bench.quant import affine_from_range, fake_quantize
from tfq_bench_ptq4dm.ranges import ClipRanges, clip_range


@pytest.fixture
def rows() -> torch.Tensor:
    """Heavy-tailed values, float32 `[5, 400]`."""
    return torch.randn(5, 400, generator=torch.Generator().manual_seed(0)) ** 3


def _error(row, low, high):
    scale, zero = affine_from_range(low, high, 4)
    return float((fake_quantize(row, scale, zero, 4) - row).double().abs().pow(2.4).mean())


def test_clip_is_the_best_of_a_hundred(rows):
    """Row by row, one clip at a time, no candidate is better than the one found."""
    low, high = clip_range(rows, 4)
    for row, a, b in zip(rows, low, high, strict=True):
        clips = row.abs().max() * torch.arange(1.0, 101.0).div(100)
        best = min(_error(row, -clip, clip) for clip in clips)
        assert _error(row, a, b) == pytest.approx(best, rel=1e-5)


def test_clip_beats_the_whole_range_on_heavy_tails(rows):
    """Four bits over the whole range waste codes on the tail."""
    low, high = clip_range(rows, 4)
    for row, a, b in zip(rows, low, high, strict=True):
        extent = row.abs().max()
        assert _error(row, a, b) < _error(row, -extent, extent)


def test_ranges_are_symmetric_or_one_sided(rows):
    """[-c, c]; [0, c] and [-c, 0] for activations of one sign; zeros keep a range of no width."""
    low, high = clip_range(torch.cat([rows, rows.abs(), -rows.abs()]), 8)
    assert torch.equal(-low[:5], high[:5])
    assert torch.equal(torch.zeros(5), low[5:10])
    assert torch.equal(torch.zeros(5), high[10:])
    assert (0.0, 0.0) == tuple(map(float, clip_range(torch.zeros(1, 3), 8)))


def test_range_follows_batches_slowly(rows):
    """After three batches r = 0.81 a + 0.09 b + 0.1 c, with each batch's own best range."""
    ranges = ClipRanges({"layer": 8}, values=10_000, generator=torch.Generator())
    for batch in rows[:3]:
        ranges.update("layer", batch)
    a, b, c = (clip_range(batch[None], 8)[1] for batch in rows[:3])
    assert torch.allclose(0.81 * a + 0.09 * b + 0.1 * c, ranges.range("layer")[1])


def test_bad_values_and_idle_layers_are_named(rows):
    """The message says which layer saw NaN, or was never run."""
    ranges = ClipRanges({"layer": 8}, values=10_000, generator=torch.Generator())
    with pytest.raises(CalibrationError, match=r"input of layer 'layer': .* finite"):
        ranges.update("layer", rows * torch.nan)
    with pytest.raises(CalibrationError, match="layer 'idle' was not run"):
        ranges.range("idle")
