"""Cached features: errors by granularity, exactness at 16 bits."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import QuantizationError
from tfq_bench.quant import affine_from_range, dequantize, quantize
from tfq_bench_tfmq.cache import quantize_feature


@pytest.fixture
def feature():
    """Features `[7, 12]` whose ranges differ between steps and between channels."""
    rows = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    return rows * torch.arange(1.0, 8.0)[:, None] * torch.arange(1.0, 13.0)


@pytest.mark.parametrize(
    ("granularity", "axes"), [("step", (1,)), ("block", (0, 1)), ("channel", (0,))]
)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_are_better_than_those_of_min_max(feature, granularity, axes, bits):
    """Steps count relative to their norm, in float64; each scale has its own group of values."""
    cache = quantize_feature("p", feature, bits=bits, granularity=granularity)
    low, high = feature.amin(dim=axes, keepdim=True), feature.amax(dim=axes, keepdim=True)
    assert low.shape == cache.scale.shape
    plain = affine_from_range(low, high, bits)

    def errors(rounded):
        square = (rounded.double() - feature.double()).square()
        return (square / feature.double().square().sum(dim=1, keepdim=True)).sum(dim=axes)

    found = errors(cache.dequantized())
    min_max = errors(dequantize(quantize(feature, *plain, bits), *plain))
    assert bool((found <= min_max * (1 + 1e-5)).all())
    assert float(found.sum()) < 0.95 * float(min_max.sum())


def test_more_scales_mean_less_error(feature):
    """A scale per step, or per channel, is better than one for a block."""
    errors = {
        name: float(
            (quantize_feature("p", feature, bits=4, granularity=name).dequantized() - feature)
            .square()
            .sum()
        )
        for name in ("step", "block", "channel")
    }
    assert errors["block"] > max(errors["step"], errors["channel"])


def test_sixteen_bits_are_float16(feature):
    """The relative error is that of half precision."""
    cache = quantize_feature("p", feature, bits=16, granularity="step")
    assert torch.equal(feature.half().float(), cache.dequantized())


def test_features_that_are_not_finite_are_named(feature):
    """Also those that float16 cannot hold."""
    with pytest.raises(QuantizationError, match="'p' is not finite"):
        quantize_feature("p", feature * torch.nan, bits=8, granularity="step")
    with pytest.raises(QuantizationError, match="'p'"):
        quantize_feature("p", feature * 1e6, bits=16, granularity="step")
