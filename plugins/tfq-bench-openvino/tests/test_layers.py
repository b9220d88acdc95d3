"""Layers against int64 sums: the same codes must come in, the same integers must come out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tfq_bench.api import StepCursor
from tfq_bench.quant.state.affine import quantize
from tfq_bench.testing.by_hand import quantized_layer
from tfq_bench_openvino.layers import CONV2D, HALVES, LINEAR, Int8Layer
from tfq_bench_openvino.operands import Operands
from tfq_bench_openvino.trials import saturates


def made(layer, original):
    """The layer's module, its step and its counts."""
    step, executed = StepCursor("cpu"), {}
    operands = Operands.of(layer, original, steps=3, saturates=saturates())
    return Int8Layer(operands, step, executed), step, executed


def sums(layer, original, x, step):
    """Int64 sums of each part, times its scales and added, in float64; and the unit of one."""
    total, unit, at = 0.0, 0.0, 0
    for part in layer.parts:
        table, axis = part.activation, 1 if x.dim() == 4 else x.dim() - 1
        piece = x.narrow(axis, part.start, part.stop - part.start)
        code = quantize(piece, table.scale[step], table.zero_point[step], table.bits).double()
        code = code - table.zero_point[step]
        weight = part.weight.double() - part.zero_point.view(-1, *[1] * (part.weight.dim() - 1))
        wide = part.scale.double().view(-1, *[1] * (2 if x.dim() == 4 else 0))
        if isinstance(original, nn.Conv2d):
            found = F.conv2d(
                code, weight, None, original.stride, original.padding, original.dilation
            )
        else:
            found = code @ weight.T
        total = total + found * table.scale[step].double() * wide
        unit, at = table.scale[step].double() * wide, at + 1
    if layer.bias is not None:
        total = total + layer.bias.double().view(-1, *[1] * (2 if x.dim() == 4 else 0))
    return total, unit


@pytest.fixture
def generator() -> torch.Generator:
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


CONVOLUTIONS = {
    "1x1": nn.Conv2d(24, 40, 1),
    "3x3": nn.Conv2d(24, 40, 3, padding=1),
    "stride": nn.Conv2d(24, 40, 3, stride=2, padding=1, bias=False),
    "uneven": nn.Conv2d(3, 8, 3, stride=(1, 2), padding=(1, 0)),
    "dilation": nn.Conv2d(24, 40, 3, padding=2, dilation=2),
    "no padding": nn.Conv2d(24, 40, 3),
}


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (6, 6), (4, 4)])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolution_sums_equal_int64_sums(generator, kind, wbits, abits):
    """At every sampler step, also where zero padding meets a zero point."""
    original = CONVOLUTIONS[kind].requires_grad_(False)
    layer = quantized_layer("conv", original, wbits=wbits, abits=abits)
    module, step, executed = made(layer, original)
    x = torch.randn(2, original.in_channels, 10, 9, generator=generator) * 2
    for index in range(3):
        step.set(index)
        expected, unit = sums(layer, original, x, index)
        found = module(x).double()
        assert ((found - expected).abs() < 0.01 * unit + 2.0**-20 * expected.abs()).all()
    assert {CONV2D: 3} == {name.removesuffix(HALVES): n for name, n in executed.items()}


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8)])
@pytest.mark.parametrize("shape", [(5, 48), (2, 7, 48), (2, 3, 5, 48)], ids=["2d", "3d", "4d"])
def test_linear_sums_equal_int64_sums(generator, wbits, abits, shape):
    """At every sampler step, for inputs of any number of dimensions."""
    original = nn.Linear(48, 17).requires_grad_(False)
    layer = quantized_layer("linear", original, wbits=wbits, abits=abits)
    module, step, executed = made(layer, original)
    x = torch.randn(shape, generator=generator) * 2
    for index in range(3):
        step.set(index)
        expected, unit = sums(layer, original, x.flatten(0, -2), index)
        found = module(x).double().flatten(0, -2)
        assert ((found - expected).abs() < 0.01 * unit + 2.0**-20 * expected.abs()).all()
    assert {LINEAR: 3} == {name.removesuffix(HALVES): n for name, n in executed.items()}


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_split_layer_sums_its_parts_and_adds_the_bias_once(generator, kind):
    """Two channel ranges with their own tables and weight scales, one bias."""
    original = nn.Conv2d(24, 8, 3, padding=1) if kind == "conv2d" else nn.Linear(24, 8)
    original.requires_grad_(False)
    layer = quantized_layer("split", original, split=16)
    module, step, _ = made(layer, original)
    step.set(1)
    shape = (2, 24, 6, 6) if kind == "conv2d" else (4, 24)
    x = torch.randn(shape, generator=generator)
    expected, _ = sums(layer, original, x, 1)
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_the_worst_sums_are_exact(kind, sign):
    """All codes 255, all weights the largest: where pairs of products are largest."""
    original = nn.Conv2d(96, 32, 1, bias=False) if kind == "conv2d" else nn.Linear(96, 32, False)
    original.requires_grad_(False).weight.fill_(sign * 1.0)
    layer = quantized_layer("worst", original, low=0.0, high=1.0)
    module, _, _ = made(layer, original)
    x = torch.full((1, 96, 3, 3) if kind == "conv2d" else (5, 96), 100.0)
    (part,) = layer.parts
    expected = 96 * 255 * sign * 127
    unit = float(part.activation.scale[0] * part.scale[0])
    found = module(x) / unit
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-6, atol=0.1)
