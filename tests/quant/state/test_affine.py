"""One rounding everywhere: the codes are those of torch's own 8-bit kernels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.quant.state.affine import (
    affine_from_range,
    dequantize,
    fake_quantize,
    quantize,
    select_step,
)

BITS = st.integers(2, 8)
FINITE = st.floats(-1e6, 1e6, width=32)


@given(values=st.lists(FINITE, min_size=1, max_size=40), bits=BITS, symmetric=st.booleans())
def test_values_inside_the_range_come_back_within_half_a_step(values, bits, symmetric):
    """|x^ - x| <= s/2 for symmetric codes; a rounded zero point may cost another half step."""
    x = torch.tensor(values, dtype=torch.float32)
    scale, zero_point = affine_from_range(x.min(), x.max(), bits, symmetric)
    codes = quantize(x, scale, zero_point, bits)
    error = (dequantize(codes, scale, zero_point).double() - x.double()).abs().max()
    assert error <= float(scale) * (0.5 if symmetric else 1.0) * (1 + 1e-4)
    assert torch.equal(
        dequantize(codes, scale, zero_point), fake_quantize(x, scale, zero_point, bits)
    )


@given(low=FINITE, high=FINITE, bits=BITS, symmetric=st.booleans())
def test_zero_is_exact_and_zero_points_are_codes(low, high, bits, symmetric):
    """Any range, even one of a single sign or of width zero, gives a usable affine map."""
    scale, zero_point = affine_from_range(
        torch.tensor(min(low, high)), torch.tensor(max(low, high)), bits, symmetric
    )
    assert 0 <= int(zero_point) < 2**bits
    assert torch.isfinite(scale)
    assert torch.isfinite(scale.reciprocal())
    assert float(fake_quantize(torch.zeros(1), scale, zero_point, bits)) == 0.0


@pytest.mark.parametrize("ties", [False, True], ids=["random", "ties"])
def test_codes_equal_torch_quantize_per_tensor_bit_by_bit(ties):
    """Also on exact halves, where another rounding or a division would differ."""
    for seed in range(50):
        g = torch.Generator().manual_seed(seed)
        scale = torch.rand(1, generator=g) * 0.05 + 1e-3
        zero_point = torch.randint(0, 256, (1,), generator=g, dtype=torch.int32)
        x = torch.randn(5003, generator=g) * 3
        if ties:
            x = (torch.randint(-400, 400, (5003,), generator=g) + 0.5) * scale
        expected = torch.quantize_per_tensor(x, float(scale), int(zero_point), torch.quint8)
        assert torch.equal(expected.int_repr(), quantize(x, scale, zero_point, 8))
        assert torch.equal(expected.dequantize(), fake_quantize(x, scale, zero_point, 8))


def test_a_table_gives_each_sample_its_step():
    """One step for the batch or one a sample; a table with one entry is that entry."""
    scale, zero_point = torch.tensor([0.1, 0.2, 0.4]), torch.tensor([0, 8, 15], dtype=torch.int32)
    some, zeros = select_step(scale, zero_point, torch.tensor([2, 0]), 4)
    assert (some.shape, some.flatten().tolist()) == ((2, 1, 1, 1), scale[[2, 0]].tolist())
    assert zeros.flatten().tolist() == [15, 0]
    assert select_step(scale, zero_point, torch.tensor([1]), 2)[0].shape == (1, 1)
    assert torch.equal(scale[:1], select_step(scale[:1], zero_point[:1], torch.tensor([2]), 4)[0])


def test_four_bit_symmetric_scale_is_a_seventh_of_the_largest_weight():
    """The restricted range: -m and m have the codes 1 and 15, 0 has the code 8."""
    scale, zero_point = affine_from_range(
        torch.tensor([-0.5]), torch.tensor([2.1]), 4, symmetric=True
    )
    torch.testing.assert_close(scale, torch.tensor([0.3]))
    codes = quantize(torch.tensor([-2.1, 0.0, 2.1]), scale, zero_point, 4)
    assert codes.tolist() == [1, 8, 15]


def test_asymmetric_range_is_widened_to_hold_zero():
    """A range of positive values begins at 0."""
    scale, zero_point = affine_from_range(torch.tensor([1.0]), torch.tensor([2.55]), 8)
    torch.testing.assert_close(scale, torch.tensor([0.01]))
    assert zero_point.tolist() == [0]
