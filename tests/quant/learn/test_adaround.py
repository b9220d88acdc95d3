"""Learned rounding: where it starts, where it ends, and what the regulariser wants."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.quant import affine_from_range, minmax, mse_range, per_channel, quantize
from tfq_bench.quant.learn.adaround import SoftRounding, anneal


def _rounding(bits=4, *, clip=False, seed=0):
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    rows = weight.flatten(1)
    low, high = mse_range(rows, bits) if clip else minmax(rows)
    scale, zero_point = affine_from_range(low, high, bits)
    return weight, scale, zero_point, SoftRounding(weight, scale, zero_point, bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_starts_at_full_precision(bits):
    """Before the first iteration the soft weight is the weight, where no range cuts it."""
    weight, scale, _, rounding = _rounding(bits)
    off = (rounding.soft() - weight).abs() / per_channel(scale, weight)
    # The zero point is rounded, so an end of the range may lie up to half a step outside.
    inside = (rounding.floor + rounding.zero_point >= 0) & (
        rounding.floor + rounding.zero_point < 2**bits - 1
    )
    assert inside.float().mean() > 0.8
    assert float(off[inside].detach().max()) < 1e-4
    assert float(off.detach().max()) <= 0.5 + 1e-4


def test_clipped_weights_start_at_the_range_s_end():
    """A weight outside of a searched range is as far off as nearest rounding makes it."""
    weight, scale, zero_point, rounding = _rounding(4, clip=True)
    codes = rounding.floor + rounding.zero_point
    outside = (codes < 0) | (codes > 15)
    assert bool(outside.any())
    nearest = quantize(weight, per_channel(scale, weight), per_channel(zero_point, weight), 4)
    assert torch.equal(nearest[outside], rounding.codes()[outside])


def test_untouched_it_rounds_to_nearest():
    """The codes before any learning are those of `quantize`."""
    weight, scale, zero_point, rounding = _rounding(4)
    nearest = quantize(weight, per_channel(scale, weight), per_channel(zero_point, weight), 4)
    assert torch.equal(nearest, rounding.codes())


def test_hard_is_what_the_codes_mean():
    """`hard` dequantizes `codes`, in float64 arithmetic too."""
    _, scale, zero_point, rounding = _rounding(4)
    with torch.no_grad():
        rounding.alpha.add_(torch.randn(rounding.alpha.shape))
    codes = rounding.codes().double()
    expected = per_channel(scale, codes).double() * (codes - per_channel(zero_point, codes))
    torch.testing.assert_close(expected, rounding.hard().double(), rtol=1e-6, atol=1e-7)


def test_regulariser_is_least_when_all_is_decided():
    """It is 0 where every h is 0 or 1, and the number of weights where every h is a half."""
    *_, rounding = _rounding(4)
    with torch.no_grad():
        rounding.alpha.copy_(torch.where(rounding.alpha >= 0, 10.0, -10.0))
        decided = float(rounding.regulariser(2.0))
        soft, hard = rounding.soft(), rounding.hard()
        rounding.alpha.zero_()
        undecided = float(rounding.regulariser(2.0))
    assert 0.0 == decided
    assert pytest.approx(rounding.alpha.numel()) == undecided
    torch.testing.assert_close(hard, soft)


def test_beta_falls_after_the_warm_up():
    """No regulariser in the first fifth, then 20 down to 2."""
    assert anneal(0, 1000) is None
    assert anneal(199, 1000) is None
    assert pytest.approx(20.0) == anneal(200, 1000)
    assert pytest.approx(11.0) == anneal(600, 1000)
    assert pytest.approx(2.0, abs=0.05) == anneal(999, 1000)
