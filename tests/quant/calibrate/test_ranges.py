"""The search is the slow loop, only faster; nothing breaks on degenerate channels."""

import pytest
import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.calibrate import ranges
from tfq_bench.quant.calibrate.ranges import EmaRange, minmax, mse_range, percentile
from tfq_bench.quant.state.affine import affine_from_range, fake_quantize


@pytest.fixture
def rows(generator):
    """Channels with outliers, of one sign, and of nothing but zeros."""
    rows = torch.randn(7, 60, generator=generator)
    rows[0, 0] = 30.0
    rows[1, 3] = -12.0
    rows[2] = rows[2].abs()
    rows[3] = 0.0
    return rows


def score(row, low, high, bits, symmetric):
    """Mean |x^ - x|^2.4 of one channel."""
    scale, zero_point = affine_from_range(low, high, bits, symmetric)
    return float((fake_quantize(row, scale, zero_point, bits) - row).abs().pow(2.4).mean())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("chunk", [1, 2000, 2**24])
def test_search_equals_a_loop_over_channels_and_candidates(
    rows, bits, symmetric, chunk, monkeypatch
):
    """Whatever fits into one chunk, and never worse than min-max."""
    monkeypatch.setattr(ranges, "CHUNK_ELEMENTS", chunk)
    low, high = mse_range(rows, bits, symmetric=symmetric)
    for channel, row in enumerate(rows):
        ends = row.min().clamp(max=0), row.max().clamp(min=0)
        scores = [
            score(row, ends[0] * (1 - k / 100), ends[1] * (1 - k / 100), bits, symmetric)
            for k in range(80)
        ]
        found = score(row, low[channel], high[channel], bits, symmetric)
        assert min(scores) == pytest.approx(found, rel=1e-5)
        assert found <= scores[0] * (1 + 1e-6)


def test_search_clips_a_rare_outlier(generator):
    """One value of 10 among 5,000 unit normals lies outside the 4-bit range."""
    row = torch.randn(1, 5000, generator=generator)
    row[0, 0] = 10.0
    _, high = mse_range(row, 4)
    assert float(high) < 10.0


def test_channel_of_zeros_keeps_a_zero_range(rows):
    """Its range has width zero and its values come back as zeros."""
    for low, high in (minmax(rows), mse_range(rows, 4)):
        assert (float(low[3]), float(high[3])) == (0.0, 0.0)
        scale, zero_point = affine_from_range(low[3], high[3], 4)
        assert not fake_quantize(rows[3], scale, zero_point, 4).any()


def test_percentile_leaves_the_tails_out_and_holds_zero():
    """The 99th percentile of 0..100 is 99; a low end above zero becomes zero."""
    low, high = percentile(torch.arange(101.0)[None], 0.99)
    torch.testing.assert_close(torch.tensor([99.0]), high)
    assert low.tolist() == [0.0]


def test_moving_average_starts_at_the_first_batch_and_follows():
    """0.9 of the old range and 0.1 of the new one."""
    ema = EmaRange(momentum=0.9)
    with pytest.raises(QuantizationError, match="before any batch"):
        ema.range()
    ema.update(torch.tensor([-1.0]), torch.tensor([1.0]))
    ema.update(torch.tensor([-2.0]), torch.tensor([3.0]))
    low, high = ema.range()
    torch.testing.assert_close(torch.tensor([-1.1, 1.2]), torch.cat([low, high]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused(value):
    """A range of NaN would make every code meaningless."""
    with pytest.raises(QuantizationError, match="finite"):
        minmax(torch.tensor([[0.0, value]]))
