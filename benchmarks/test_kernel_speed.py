"""Quantized convolution and linear layers beside FP32, at shapes of the embedded network.

Run with `tox -e bench` or `OMP_NUM_THREADS=2 pytest benchmarks --benchmark-only`; never part of the
test command. Batch 8; the time of the int8 layers includes quantizing their input.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tfq_bench.api import StepCursor
from tfq_bench.quant.state.affine import affine_from_range, per_channel, quantize
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer
from tfq_bench_cpu.layers import Int8Conv2d, Int8Linear
from tfq_bench_cpu.onednn import Geometry

CONVOLUTIONS = {
    "conv 64-64 3x3 at 32": (64, 64, 3, 32),
    "conv 128-128 3x3 at 16": (128, 128, 3, 16),
    "conv 256-128 1x1 at 16": (256, 128, 1, 16),
}
LINEARS = {"attention 128-128, 256 tokens": (128, 128, 256), "time 64-256": (64, 256, 1)}


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def _quantized(module) -> QuantizedLayer:
    """Symmetric 8-bit weights by min-max, one activation range."""
    weight = module.weight.detach()
    low, high = weight.flatten(1).aminmax(dim=1)
    scale, zero = affine_from_range(low, high, 8, symmetric=True)
    input_scale, input_zero = affine_from_range(torch.tensor([-3.0]), torch.tensor([4.0]), 8)
    part = LayerPart(
        start=0,
        stop=weight.shape[1],
        weight=quantize(weight, per_channel(scale, weight), per_channel(zero, weight), 8),
        scale=scale,
        zero_point=zero,
        activation=ActivationQParams(bits=8, scale=input_scale, zero_point=input_zero),
    )
    kind = "conv2d" if isinstance(module, nn.Conv2d) else "linear"
    return QuantizedLayer(
        name="layer", kind=kind, wbits=8, parts=(part,), bias=module.bias.detach()
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("shape", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(benchmark, shape, precision):
    """One call of a convolution on a channels-last input."""
    inside, outside, kernel, size = shape
    padding = kernel // 2
    module = nn.Conv2d(inside, outside, kernel, padding=padding)
    x = torch.randn(8, inside, size, size).to(memory_format=torch.channels_last)
    benchmark.group = f"{inside}-{outside} {kernel}x{kernel} at {size}"
    if precision == "int8":
        geometry = Geometry(stride=(1, 1), padding=(padding, padding), dilation=(1, 1), groups=1)
        module = Int8Conv2d(_quantized(module), geometry, StepCursor("cpu"), {})
    benchmark(module, x)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("shape", LINEARS.values(), ids=LINEARS)
def test_linear(benchmark, shape, precision):
    """One call of a linear layer."""
    inside, outside, tokens = shape
    module = nn.Linear(inside, outside)
    benchmark.group = f"linear {inside}-{outside}, {tokens} tokens"
    if precision == "int8":
        module = Int8Linear(_quantized(module), StepCursor("cpu"), {})
    benchmark(module, torch.randn(8, tokens, inside))
