"""Codes of activations: the toolkit's, whatever torch does between product and zero point."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.quant import quantize as elementary
from tfq_bench_cpu import codes
from tfq_bench_cpu.codes import quantize


@pytest.fixture(params=["as this torch needs it", "rounded before"], autouse=True)
def rounded_before(request, monkeypatch):
    """Every test also with the form for builds of torch that round after the zero point."""
    if request.param == "rounded before":
        monkeypatch.setattr(codes, "rounds_first", lambda: False)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_codes_are_clamped_to_their_bits_and_ties_go_to_even(bits):
    """Codes below 0 and above 2^bits - 1 saturate; halves round to the even neighbour."""
    x = torch.tensor([-1e9, -3.0, -0.5, 0.0, 0.5, 1.5, 2.5, 1e9])
    top = 2**bits - 1
    expected = [0, 0, 2, 2, 2, 4, 4, top]
    assert expected == quantize(x, 1.0, 2, bits).tolist()


def test_codes_keep_the_layout_of_their_input():
    """A channels-last input gives channels-last codes, so the kernel need not copy them."""
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last)
    code = quantize(x, 0.1, 100, 8)
    expected = torch.round(x * (1 / torch.tensor(0.1))).add(100).clamp(0, 255)
    assert torch.equal(expected, code.float())
    assert code.is_contiguous(memory_format=torch.channels_last)


def test_codes_beside_ties_are_the_toolkits():
    """7.500001 above zero point 105 is 113: added first, float32 would make it a tie, 112."""
    generator = torch.Generator().manual_seed(0)
    for zero_point in (0, 7, 105, 150, 255):
        scale = (torch.rand((), generator=generator) * 0.05 + 0.003).item()
        ties = (torch.arange(-300, 300) + 0.5) * scale
        x = ties.repeat(9) * (1 + torch.linspace(-4e-7, 4e-7, 9).repeat_interleave(600))
        expected = elementary(x, torch.tensor(scale), torch.tensor(zero_point), 8)
        assert torch.equal(expected, quantize(x, scale, zero_point, 8))


def test_the_input_is_left_alone():
    """The next layer may read it too."""
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    quantize(x, 0.1, 100, 4)
    assert torch.equal(before, x)
