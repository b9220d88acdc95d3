"""Both passes around a simulated product: one kernel gives the bits of the tensor operations."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.quant.lower.elementwise import input_codes, scaled_sums
from tfq_bench.quant.state.affine import centred_codes

pytestmark = pytest.mark.gpu

SHAPES = [(16, 96, 8, 8), (16, 77, 96), (33, 96)]


def normal(shape, dtype=torch.float32):
    """On the GPU, images with channels last."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("bits", "scale", "zero_point"), [(8, 0.0237, 113), (4, 0.41, 7)])
def test_codes(shape, dtype, bits, scale, zero_point):
    """Also of values far outside of the range, and in the layout of the input."""
    x = 3 * normal(shape, dtype)
    x.view(-1)[:3] = torch.tensor([1e30, -1e30, 0.0], device="cuda")
    one = (1,) * len(shape)
    given = (
        torch.full(one, scale, device="cuda"),
        torch.full(one, zero_point, dtype=torch.int32, device="cuda"),
        bits,
    )
    found, expected = input_codes(x, *given), centred_codes(x, *given)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert (expected.min(), expected.max()) == (-zero_point, 2**bits - 1 - zero_point)


def test_what_is_no_number_stays_none():
    """So that a network that diverged is still found."""
    x = torch.tensor([float("nan"), float("inf"), -float("inf")], device="cuda")
    scale, zero_point = torch.ones(1, device="cuda"), torch.tensor([3], device="cuda")
    assert input_codes(x, scale, zero_point, 8).isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_scaled_sums(shape, with_bias):
    """Rounded three times, never once for two operations."""
    sums = (1e6 * normal(shape)).round()
    wide = (-1, 1, 1) if len(shape) == 4 else (-1,)
    scale = torch.full((1,) * len(shape), 0.0237, device="cuda")
    weight_scale = torch.rand(96, device="cuda").reshape(wide)
    bias = torch.randn(96, device="cuda").reshape(wide) if with_bias else None
    expected = sums * scale * weight_scale
    if bias is not None:
        expected = expected + bias
    assert torch.equal(scaled_sums(sums, scale, weight_scale, bias), expected)
