"""Layers against int64 sums: the same codes must come in, the same integers must come out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tfq_bench.api import StepCursor
from tfq_bench.quant.state.affine import quantize
from tfq_bench_cpu.layers import CONV2D, LINEAR, Int8Conv2d, Int8Linear
from tfq_bench_cpu.onednn import Geometry

PLAIN = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
PADDED = Geometry(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
STRIDED = Geometry(stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1)


def integers(part, x: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes minus zero point of input and weight, as exact float64."""
    table = part.activation
    code = quantize(x, table.scale[step], table.zero_point[step], table.bits)
    weight = part.weight.double() - part.zero_point.view(-1, *[1] * (part.weight.dim() - 1))
    return code.double() - table.zero_point[step], weight


@pytest.fixture
def generator() -> torch.Generator:
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (6, 8), (4, 4)])
@pytest.mark.parametrize(
    ("kernel", "geometry"), [(1, PLAIN), (3, PADDED), (3, STRIDED)], ids=["1x1", "3x3", "stride2"]
)
def test_convolution_sums_equal_int64_sums(quantized, generator, wbits, abits, kernel, geometry):
    """At every sampler step the output over its scales is exactly the integer sum."""
    layer = quantized("conv", nn.Conv2d(24, 40, kernel, bias=False), wbits=wbits, abits=abits)
    step, executed = StepCursor("cpu"), {}
    module = Int8Conv2d(layer, geometry, step, executed)
    x = torch.randn(2, 24, 10, 10, generator=generator) * 2
    (part,) = layer.parts
    for index, scale in enumerate(part.activation.scale):
        step.set(index)
        code, weight = integers(part, x, index)
        expected = F.conv2d(code, weight, None, geometry.stride, geometry.padding)
        found = module(x).double() / (scale.double() * part.scale.double().view(-1, 1, 1))
        assert torch.equal(expected, found.round())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-3)
    assert {CONV2D: 3} == {name.partition(",")[0]: n for name, n in executed.items()}


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (4, 4)])
@pytest.mark.parametrize("shape", [(5, 48), (2, 7, 48)], ids=["2d", "attention"])
def test_linear_sums_equal_int64_sums(quantized, generator, wbits, abits, shape):
    """At every sampler step the output over its scales is exactly the integer sum."""
    layer = quantized("linear", nn.Linear(48, 17, bias=False), wbits=wbits, abits=abits)
    step, executed = StepCursor("cpu"), {}
    module = Int8Linear(layer, step, executed)
    x = torch.randn(shape, generator=generator) * 2
    (part,) = layer.parts
    for index, scale in enumerate(part.activation.scale):
        step.set(index)
        code, weight = integers(part, x, index)
        found = module(x).double() / (scale.double() * part.scale.double())
        assert torch.equal(code @ weight.T, found.round())
    assert {LINEAR: 3} == {name.partition(",")[0]: n for name, n in executed.items()}


def test_transposed_attention_input_gives_the_same_as_a_copy(quantized, generator):
    """A `[B, L, C]` view of `[B, C, L]`, as attention blocks pass it, is read correctly."""
    layer = quantized("linear", nn.Linear(48, 17))
    module = Int8Linear(layer, StepCursor("cpu"), {})
    view = torch.randn(2, 48, 9, generator=generator).transpose(1, 2)
    assert torch.equal(module(view.contiguous()), module(view))


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_split_layer_sums_its_parts_and_adds_the_bias_once(quantized, generator, kind):
    """Two channel ranges with their own tables and weight scales, one bias."""
    original = nn.Conv2d(24, 8, 3) if kind == "conv2d" else nn.Linear(24, 8)
    layer = quantized("split", original, split=16)
    step, executed = StepCursor("cpu"), {}
    step.set(1)
    expected = layer.bias.double().view(-1, *[1] * (original.weight.dim() - 2))
    if kind == "conv2d":
        module = Int8Conv2d(layer, PADDED, step, executed)
        x = torch.randn(2, 24, 6, 6, generator=generator)
        x = x.to(memory_format=torch.channels_last)
    else:
        module, x = Int8Linear(layer, step, executed), torch.randn(4, 24, generator=generator)
    for part in layer.parts:
        code, weight = integers(part, x[:, part.start : part.stop], 1)
        sums = F.conv2d(code, weight, padding=1) if kind == "conv2d" else code @ weight.T
        scale = part.activation.scale[1].double() * part.scale.double()
        expected = expected + sums * scale.view(-1, *[1] * (original.weight.dim() - 2))
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-6, atol=1e-5)
    assert list(executed.values()) == [1]


def test_one_row_of_parameters_serves_every_step(quantized, generator):
    """A static table has length 1 and is used wherever the cursor stands."""
    from tfq_bench.quant.state.qparams import ActivationQParams
    from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer

    layer = quantized("linear", nn.Linear(48, 17))
    (part,) = layer.parts
    static = ActivationQParams(
        bits=8, scale=part.activation.scale[:1], zero_point=part.activation.zero_point[:1]
    )
    changed = {name: getattr(part, name) for name in LayerPart.__dataclass_fields__}
    part = LayerPart(**{**changed, "activation": static})
    layer = QuantizedLayer(name="linear", kind="linear", wbits=8, parts=(part,), bias=layer.bias)
    step = StepCursor("cpu")
    module = Int8Linear(layer, step, {})
    x = torch.randn(4, 48, generator=generator)
    first = module(x)
    step.set(2)
    assert torch.equal(first, module(x))


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_network_of_16_bits_gets_its_own_type_back(quantized, generator, kind):
    """Codes are taken in float32 of the bfloat16 values, and only the result is rounded."""
    original = nn.Conv2d(24, 40, 3, padding=1) if kind == "conv" else nn.Linear(24, 40)
    layer = quantized(kind, original, wbits=8, abits=8)
    step, executed = StepCursor("cpu"), {}
    if kind == "conv":
        module = Int8Conv2d(layer, PADDED, step, executed)
    else:
        module = Int8Linear(layer, step, executed)
    x = torch.randn((2, 24, 10, 10) if kind == "conv" else (2, 24), generator=generator)
    found = module(x.bfloat16())
    assert torch.bfloat16 == found.dtype
    assert torch.equal(module(x.bfloat16().float()).bfloat16(), found)
