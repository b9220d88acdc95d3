"""The regression finds what was put in."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import QuantizationError
from tfq_bench_ptqd.fit import fit_error

BIAS = torch.tensor([0.3, -0.2, 0.0])


def predictions(slope, sigma=0.1):
    """E of uneven channels, and e^ with this slope, `BIAS` and normal noise."""
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(200, 3, 8, 8, generator=generator)
    exact = exact * torch.tensor([1.0, 0.5, 2.0])[:, None, None] + BIAS.flip(0)[:, None, None]
    noise = sigma * torch.randn(exact.shape, generator=generator)
    return exact, (1 + slope) * exact + BIAS[:, None, None] + noise


@pytest.mark.parametrize("slope", [0.25, 0.0, -0.4])
def test_slope_bias_and_variance_are_recovered(slope):
    """Of an error that is k e + b_c + noise, with channels of different mean and size."""
    found = fit_error(*predictions(slope), negative_slopes=True)
    assert slope == pytest.approx(found.slope, abs=1e-3)
    torch.testing.assert_close(BIAS.double(), found.bias, atol=5e-3, rtol=0)
    assert 0.01 == pytest.approx(found.variance, rel=0.02)


def test_the_fit_is_exact_without_noise():
    """To float32's rounding of the predictions."""
    found = fit_error(*predictions(0.1, sigma=0.0))
    assert 0.1 == pytest.approx(found.slope, abs=1e-6)
    assert found.variance < 1e-12


def test_what_is_not_to_be_corrected_stays_zero():
    """Without slope its share is in the variance; a bias that stays is not taken for noise."""
    exact, found = predictions(0.25)
    flat = fit_error(exact, found, slope=False)
    assert 0.0 == flat.slope
    assert flat.variance > 0.05
    unbiased = fit_error(exact, found, bias=False)
    assert 0.25 == pytest.approx(unbiased.slope, abs=1e-3)
    assert 0.0 == float(unbiased.bias.abs().max())
    assert 0.01 == pytest.approx(unbiased.variance, rel=0.02)


def test_negative_slopes_are_left_alone():
    """As the released code does, unless they are asked for; then what they explain is variance."""
    exact, found = predictions(-0.4)
    left = fit_error(exact, found)
    assert 0.0 == left.slope
    assert left.variance > 5 * fit_error(exact, found, negative_slopes=True).variance


def test_predictions_that_cannot_be_corrected_are_refused():
    """Nothing left of full precision, or not numbers."""
    exact, _ = predictions(0.0)
    with pytest.raises(QuantizationError, match="above -1, found -1"):
        fit_error(exact, -0.1 * exact, negative_slopes=True)
    with pytest.raises(QuantizationError, match="finite"):
        fit_error(exact, exact / 0)


def test_a_constant_prediction_has_no_slope():
    """There is nothing to regress on; its shift is a bias."""
    exact = torch.ones(2, 3, 4, 4)
    found = fit_error(exact, exact + 0.5)
    assert 0.0 == found.slope == found.variance
    assert [0.5, 0.5, 0.5] == found.bias.tolist()
