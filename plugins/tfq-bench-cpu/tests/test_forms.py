"""Layouts of weights: the same sums, and no pair of products that leaves 16 bits."""

from __future__ import annotations

import pytest
import torch

from tfq_bench_cpu.forms import Form, fits, repeated, spread


@pytest.fixture
def generator() -> torch.Generator:
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


def largest_pairs(weight: torch.Tensor) -> tuple[int, int]:
    """The lowest and the highest sum of two neighbouring products, over all codes."""
    first, second = weight.long()[:, 0::2], weight.long()[:, 1::2]
    low = first.clamp(max=0) + second.clamp(max=0)
    high = first.clamp(min=0) + second.clamp(min=0)
    return 255 * int(low.min()), 255 * int(high.max())


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("form", Form)
def test_sums_stay_the_same(generator, form, groups):
    """Repeated codes times spread weights are codes times weights, group by group."""
    weight = torch.randint(-90, 90, (8, 6), generator=generator, dtype=torch.int8)
    code = torch.randint(0, 256, (5, 6 * groups), generator=generator, dtype=torch.uint8)
    wide = spread(weight, form)
    assert wide.dtype == torch.int8
    expected = code.long().unflatten(1, (groups, -1)) @ weight.long().T
    found = repeated(code, form, groups).long().unflatten(1, (groups, -1)) @ wide.long().T
    assert torch.equal(expected, found)


@pytest.mark.parametrize("pair", [(127, 127), (127, 2), (-128, -128), (-1, -128), (127, -128)])
@pytest.mark.parametrize("form", [Form.PAIRS, Form.HALVES])
def test_what_a_pair_loses_goes_to_the_copy(form, pair):
    """The extremes of int8 fit, and still add up to themselves."""
    weight = torch.tensor([[*pair, 1, 1]], dtype=torch.int8)
    wide = spread(weight, form)
    low, high = largest_pairs(wide)
    assert low >= -(2**15)
    assert high < 2**15
    code = torch.full((1, 4), 255, dtype=torch.uint8)
    assert 255 * weight.sum() == (repeated(code, form).long() * wide).sum()


def test_fit_is_the_limit_of_16_bits():
    """Of all pairs of int8 weights, exactly those fit whose worst sum is within int16."""
    values = torch.arange(-128, 128)
    pairs = torch.cartesian_prod(values, values)
    for pair in pairs[::97].tolist():
        low, high = largest_pairs(torch.tensor([pair]))
        assert (low >= -(2**15) and high < 2**15) == fits(torch.tensor([pair]))


def test_pairs_are_refused_where_copies_do_not_fit():
    """Two copies side by side may be too large again, and an odd channel has no pair."""
    assert spread(torch.full((1, 4), 127, dtype=torch.int8), Form.PAIRS) is None
    assert spread(torch.ones(1, 3, dtype=torch.int8), Form.PAIRS) is None
    assert fits(spread(torch.full((1, 4), 127, dtype=torch.int8), Form.HALVES))


def test_codes_of_a_view_are_repeated(generator):
    """Codes whose channels do not lie side by side, as a transposed input gives them."""
    code = torch.randint(0, 256, (2, 6, 5), generator=generator, dtype=torch.uint8)
    code = code.transpose(1, 2)
    assert torch.equal(torch.cat([code, code[..., ::2]], -1), repeated(code, Form.PAIRS))
