"""Layers with the kernels' arithmetic in plain torch, against `SimulatedLayer`: the same bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from tfq_bench.api import StepCursor
from tfq_bench.quant.lower.simulate import SimulatedLayer
from tfq_bench.testing.integers import integer_sums
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, Tile
from tfq_bench_cuda.layers import CudaConv2d, CudaLinear

TILE = Tile(m=128, n=128, k=32, stages=3, threads=256)

CONVOLUTIONS = {
    "3x3": nn.Conv2d(24, 40, 3, padding=1),
    "1x1": nn.Conv2d(24, 40, 1),
    "unpadded stride 2": nn.Conv2d(24, 40, 3, stride=2),
    "stride 2": nn.Conv2d(24, 40, 3, stride=2, padding=1),
    "5x5": nn.Conv2d(24, 40, 5, padding=2),
    "dilated": nn.Conv2d(24, 40, 3, padding=2, dilation=2),
    "not square": nn.Conv2d(24, 40, (1, 3), padding=(0, 1)),
    "three channels": nn.Conv2d(3, 40, 3, padding=1),
    "without bias": nn.Conv2d(24, 40, 3, padding=1, bias=False),
}


def convolution(layer, original, step, executed, gathers=False) -> CudaConv2d:
    """The module on the CPU, its products formed by torch."""
    kernels = ReferenceKernels()
    kernels.gathers = gathers
    geometry = Geometry(
        kernel=original.kernel_size,
        stride=original.stride,
        padding=original.padding,
        dilation=original.dilation,
    )
    return CudaConv2d(
        layer,
        geometry,
        kernels,
        step,
        executed,
        tiles=lambda *_, **__: TILE,
        device=torch.device("cpu"),
        dtype=original.weight.dtype,
    )


def linear(layer, original, step, executed) -> CudaLinear:
    """The same for a linear layer."""
    return CudaLinear(
        layer,
        ReferenceKernels(),
        step,
        executed,
        tiles=lambda *_, **__: TILE,
        device=torch.device("cpu"),
        dtype=original.weight.dtype,
    )


@pytest.fixture
def generator() -> torch.Generator:
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


def images(generator, original, last=False) -> torch.Tensor:
    """Inputs of a convolution, in one of both layouts."""
    x = torch.randn(2, original.in_channels, 9, 8, generator=generator) * 2
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (6, 8), (4, 8), (4, 4)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_gives_the_bits_of_the_simulation(
    quantized, generator, name, wbits, abits, last
):
    """At every step, zero point and border; the output's layout is the simulation's too."""
    original = CONVOLUTIONS[name]
    layer = quantized("conv", original, wbits=wbits, abits=abits)
    step, executed = StepCursor("cpu"), {}
    module = convolution(layer, original, step, executed)
    simulated = SimulatedLayer(layer, original, step)
    x = images(generator, original, last)
    for index in range(3):
        step.set(index)
        expected, found = simulated(x), module(x)
        assert torch.equal(expected, found)
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert executed == {module.kernel: 3}


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (4, 4)])
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (2, 3, 4, 24)])
def test_linear_layer_gives_the_bits_of_the_simulation(quantized, generator, wbits, abits, shape):
    """At every step, for inputs of two to four dimensions."""
    original = nn.Linear(24, 17)
    layer = quantized("linear", original, wbits=wbits, abits=abits)
    step, executed = StepCursor("cpu"), {}
    module = linear(layer, original, step, executed)
    x = torch.randn(shape, generator=generator) * 2
    for index in range(3):
        step.set(index)
        assert torch.equal(SimulatedLayer(layer, original, step)(x), module(x))


def test_sums_are_those_of_integers(quantized, generator):
    """With the scales divided out, int64 sums, where zero padding meets a zero point too."""
    original = CONVOLUTIONS["3x3"]
    layer = dataclasses.replace(quantized("conv", original), bias=None)
    step = StepCursor("cpu")
    module = convolution(layer, original, step, {})
    x = images(generator, original)
    (part,) = layer.parts
    for index in range(3):
        step.set(index)
        (expected,) = integer_sums(layer, x, padding=1, step=index)
        scales = part.activation.scale[index].double() * part.scale.double().view(-1, 1, 1)
        assert torch.equal(expected, (module(x).double() / scales).round().long())


@pytest.mark.parametrize("kind", ["3x3", "1x1", "linear"])
def test_split_layer_gives_the_bits_of_the_simulation(quantized, generator, kind):
    """Two channel ranges with tables of their own; the first needs filling up, one bias."""
    original = nn.Linear(24, 8) if kind == "linear" else CONVOLUTIONS[kind]
    layer = quantized("split", original, split=13)
    step = StepCursor("cpu")
    step.set(1)
    if kind == "linear":
        module, x = linear(layer, original, step, {}), torch.randn(4, 24, generator=generator)
    else:
        module, x = convolution(layer, original, step, {}), images(generator, original)
    assert torch.equal(SimulatedLayer(layer, original, step)(x), module(x))
    first, second = module.specs(Ending())
    assert (first.ending.partial, second.ending.partial) == (False, True)


def test_only_the_last_part_rounds(quantized, generator):
    """A network in bfloat16: parts add in float32, as in the simulation."""
    original = CONVOLUTIONS["3x3"]
    layer = quantized("split", original, split=8)
    step = StepCursor("cpu")
    half = nn.Conv2d(24, 40, 3, padding=1).bfloat16()
    module = convolution(layer, half, step, {})
    x = images(generator, original).bfloat16()
    found = module(x)
    assert torch.equal(SimulatedLayer(layer, half, step)(x), found)
    assert [spec.ending.out for spec in module.specs(module.runs)] == ["float32", "bfloat16"]
    assert found.dtype == torch.bfloat16


def test_attention_input_is_read_in_place(quantized, generator):
    """A `[B, L, C]` view of `[B, C, L]` gives the same as a copy."""
    original = nn.Linear(24, 17)
    module = linear(quantized("linear", original), original, StepCursor("cpu"), {})
    view = torch.randn(2, 24, 9, generator=generator).transpose(1, 2)
    assert torch.equal(module(view.contiguous()), module(view))


def test_one_row_of_parameters_serves_every_step(quantized, generator):
    """A static table has length 1 and is used wherever the cursor stands."""
    original = nn.Linear(24, 17)
    layer = quantized("linear", original)
    (part,) = layer.parts
    table = part.activation
    static = dataclasses.replace(
        table, scale=table.scale[:1].clone(), zero_point=table.zero_point[:1].clone()
    )
    layer = dataclasses.replace(layer, parts=(dataclasses.replace(part, activation=static),))
    step = StepCursor("cpu")
    module = linear(layer, original, step, {})
    x = torch.randn(4, 24, generator=generator)
    first = module(x)
    step.set(2)
    assert torch.equal(first, module(x))


def test_which_kernel_a_convolution_gets(quantized):
    """Pointwise ones are matrix products; pixels are gathered where the copy engine cannot."""
    found = {}
    for name, original in CONVOLUTIONS.items():
        layer = quantized("conv", original)
        (spec,) = convolution(layer, original, StepCursor("cpu"), {}).specs(Ending())
        found[name] = "linear" if isinstance(spec, LinearSpec) else spec.gather
    assert found["1x1"] == "linear"
    gathered = {name for name, gather in found.items() if gather is True}
    assert {"unpadded stride 2", "not square"} == gathered
    original = CONVOLUTIONS["3x3"]
    layer = quantized("conv", original)
    (spec,) = convolution(layer, original, StepCursor("cpu"), {}, gathers=True).specs(Ending())
    assert isinstance(spec, ConvSpec)
    assert spec.gather


def test_weights_lie_unpacked_on_the_device(quantized):
    """One byte a weight whatever its bits, and zeros up to 32 channels."""
    original = CONVOLUTIONS["3x3"]
    module = convolution(quantized("conv", original, wbits=4), original, StepCursor("cpu"), {})
    assert 40 * 9 * 32 == module.weight_bytes
