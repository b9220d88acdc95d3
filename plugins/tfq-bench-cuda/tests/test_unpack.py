"""Two 4-bit weights a byte: packed, unpacked, and kept apart where they do not fit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from tfq_bench.api import StepCursor
from tfq_bench_cuda.blocks.joined import Joined, same_codes
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import Ending, Tile
from tfq_bench_cuda.kernels.unpack import Scratch, expand_reference, pack
from tfq_bench_cuda.layers import CudaLinear
from tfq_bench_cuda.weights import make_weight

TILE = Tile(m=128, n=128, k=32, stages=3, threads=256)


def weights(rows: int, columns: int, low: int = -8, high: int = 7) -> torch.Tensor:
    """int8 at random, the ends of the range among them."""
    generator = torch.Generator().manual_seed(rows)
    found = torch.randint(low, high + 1, (rows, columns), generator=generator, dtype=torch.int8)
    found[0, 0], found[-1, -1] = low, high
    return found


@pytest.mark.parametrize("shape", [(1, 32), (3, 64), (40, 9 * 96)])
def test_packed_weights_come_back(shape):
    """Half of the bytes, every number from -8 to 7 at every place."""
    weight = weights(*shape)
    packed = pack(weight)
    assert (torch.uint8, weight.numel() // 2) == (packed.dtype, packed.numel())
    assert torch.equal(weight, expand_reference(packed))


def test_a_byte_holds_weights_sixteen_apart():
    """The order that the kernel reads: low half first."""
    weight = torch.zeros(1, 32, dtype=torch.int8)
    weight[0, 3], weight[0, 19] = -8, 5
    assert 0x58 == int(pack(weight)[0, 3])


PROGRAM = """
import torch
from tfq_bench_cuda.kernels.unpack import pack
from tfq_bench_cuda.kernels.unpack_program import launch
for shape in ((1, 32), (37, 96), (300, 320)):
    weight = torch.randint(-8, 8, shape, dtype=torch.int8)
    out = torch.full(shape, 99, dtype=torch.int8)
    launch(pack(weight), out)
    assert torch.equal(weight, out), shape
"""


def test_kernel_gives_the_numbers_of_the_reference():
    """In Triton's interpreter: fewer groups than a thread block takes, and more."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 32), (37, 96), (1280, 9 * 2560)])
def test_kernel_on_the_gpu(shape):
    """Compiled, as products find it."""
    weight = weights(*shape).cuda()
    assert torch.equal(weight, Scratch().expanded(pack(weight)))


def linear(layer, scratch, executed) -> CudaLinear:
    """A layer on the CPU, its products formed by torch."""
    return CudaLinear(
        layer,
        ReferenceKernels(),
        StepCursor("cpu"),
        executed,
        tiles=lambda *_, **__: TILE,
        device=torch.device("cpu"),
        dtype=torch.float32,
        scratch=scratch,
    )


def test_a_packed_layer_gives_the_same_numbers(quantized):
    """All parts share one buffer; the layer takes half of the bytes."""
    module = nn.Linear(96, 40)
    layer = quantized("linear", module, wbits=4, split=64)
    scratch, x = Scratch(), torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    packed, whole = linear(layer, scratch, {}), linear(layer, None, {})
    assert torch.equal(whole(x), packed(x))
    assert whole.weight_bytes == 2 * packed.weight_bytes == 40 * 96
    assert scratch.nbytes == 40 * 64


def test_weights_out_of_range_stay_unpacked(quantized):
    """Asymmetric 4-bit weights less their zero point may need 5 bits; the reason says so."""
    (part,) = quantized("linear", nn.Linear(32, 8), wbits=4).parts
    part.zero_point.zero_()
    found = make_weight(part, Scratch())
    assert found.scratch is None
    assert "outside 4 bits" in found.reason


@pytest.mark.parametrize("form", ["packed", "int8", "both"])
def test_joined_layers_share_one_product(quantized, form):
    """Queries, keys and values: rows of one weight, each layer still right by itself."""
    executed: dict[str, int] = {}
    scratch = Scratch()
    modules = [nn.Linear(64, width) for width in (32, 48, 32)]
    layers = [
        linear(
            quantized(str(number), module, wbits=4),
            None if form == "int8" or (form == "both" and number == 1) else scratch,
            executed,
        )
        for number, module in enumerate(modules)
    ]
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([layer(x) for layer in layers], dim=1)
    assert same_codes(layers)
    joined = Joined(layers)
    (code,) = layers[0].codes(x, planes=False)
    assert torch.equal(expected, joined.product(code, Ending()))
    assert torch.equal(expected, torch.cat([layer(x) for layer in layers], dim=1))
    bytes_each = 32 if form == "packed" else 64
    assert 112 * bytes_each == sum(layer.weight_bytes for layer in layers)
    assert {layer.kernel for layer in layers} == {joined.kernel_of(Ending())}
    assert [joined.spec(Ending())] == layers[1].running
