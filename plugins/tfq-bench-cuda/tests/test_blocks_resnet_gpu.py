"""Fused blocks of convolutional U-Nets with compiled kernels, in widths of Stable Diffusion."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from tfq_bench.api import LoadedModel, Scheme
from tfq_bench.host.plugins import discover
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.testing.inputs import tiny_state
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.blocks.fuse import fuse
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.layers import CudaLayer
from tfq_bench_cuda.machine import check_machine

pytestmark = pytest.mark.gpu

CLOSE = {torch.float32: 2.0**-10, torch.bfloat16: 2.0**-6}
"""As in `test_blocks_resnet`, for the same reasons; here attention is rounded too."""

TIME = 1280

in_both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Of this machine's GPU."""
    return Kernels(check_machine("cuda"), "cuda")


@pytest.fixture(autouse=True)
def same_numbers():
    """Fresh weights and inputs are equal in every test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def images(channels, size, dtype, last=True):
    """`[2, channels, *size]`, with channels of different spread, in one of both layouts."""
    x = torch.randn(2, channels, *size) * torch.rand(channels, 1, 1) + torch.randn(channels, 1, 1)
    x = x.to("cuda", dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def time(dtype):
    """`[2, features]`."""
    return torch.randn(2, TIME).to("cuda", dtype)


def resnet(inputs, outputs):
    """A block of Stable Diffusion."""
    return ResnetBlock2D(in_channels=inputs, out_channels=outputs, temb_channels=TIME, groups=32)


def attention():
    """As `UNet2DModel` has it: five heads of 64 channels."""
    return Attention(
        320, heads=5, dim_head=64, norm_num_groups=32, residual_connection=True, bias=True
    )


def fused(block):
    """The block, which is known and has no reason not to be fused."""
    (use,) = fuse(nn.ModuleDict({"block": block}))
    assert use.reason is None
    return block


@in_both_types
@pytest.mark.parametrize("wbits", [8, 4])
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "last"),
    [
        (320, 320, (64, 64), True),
        (320, 320, (64, 64), False),
        (320, 640, (32, 32), True),
        (640, 320, (13, 11), True),
    ],
)
def test_resnet(kernel_block, distance, kernels, inputs, outputs, size, last, wbits, dtype):
    """With and without a shortcut, both layouts, a size that fills no tile."""
    given = (images(inputs, size, dtype, last), time(dtype))
    block, step, _ = kernel_block(resnet(inputs, outputs), given, kernels=kernels, wbits=wbits)
    assert distance(fused(block), step, *given) <= CLOSE[dtype]


@in_both_types
def test_resnet_that_reads_a_concatenation(kernel_block, distance, kernels, dtype):
    """Two parts in the convolution and in the shortcut, the first one not a multiple of 32."""
    given = (images(640, (32, 32), dtype), time(dtype))
    splits = {"conv1": 310, "conv_shortcut": 310}
    block, step, _ = kernel_block(resnet(640, 320), given, kernels=kernels, splits=splits)
    assert distance(fused(block), step, *given) <= CLOSE[dtype]


@in_both_types
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "planes"])
def test_upsampling_gives_the_bits_of_its_layers(kernel_block, distance, kernels, last, dtype):
    """Codes are doubled eight bytes at a time."""
    x = images(320, (32, 32), dtype, last)
    block, step, _ = kernel_block(Upsample2D(320, use_conv=True), (x,), kernels=kernels)
    assert distance(fused(block), step, x) == 0


@in_both_types
@pytest.mark.parametrize("size", [(64, 64), (13, 11)])
def test_downsampling_gives_the_bits_of_its_layers(kernel_block, distance, kernels, size, dtype):
    """Threads that read pixels stop at the border that the table of positions says."""
    x = images(320, size, dtype)
    original = Downsample2D(320, use_conv=True, padding=0, name="op")
    block, step, _ = kernel_block(original, (x,), kernels=kernels)
    assert distance(fused(block), step, x) == 0


@in_both_types
@pytest.mark.parametrize("size", [(16, 16), (13, 11)])
def test_attention(kernel_block, distance, kernels, size, dtype):
    """Queries, keys and values are views of one product."""
    x = images(320, size, dtype)
    block, step, _ = kernel_block(attention(), (x,), kernels=kernels)
    assert distance(fused(block), step, x) <= CLOSE[dtype]


@pytest.mark.parametrize("kind", ["resnet", "attention", "up", "down"])
def test_a_captured_block_is_the_eager_one_at_every_step(kernel_block, kernels, kind):
    """No pass reads anything on the host."""
    build = {
        "resnet": lambda: resnet(320, 640),
        "attention": attention,
        "up": lambda: Upsample2D(320, use_conv=True),
        "down": lambda: Downsample2D(320, use_conv=True, padding=0, name="op"),
    }
    x = images(320, (16, 16), torch.bfloat16)
    given = (x, time(torch.bfloat16)) if kind == "resnet" else (x,)
    block, step, _ = kernel_block(build[kind](), given, kernels=kernels)
    fused(block)
    expected = []
    for index in range(3):
        step.set(index)
        expected.append(block(*given))
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        found = block(*given)
    for index in range(3):
        step.set(index)
        graph.replay()
        assert torch.equal(expected[index], found)
    assert not torch.equal(expected[0], expected[2])


@pytest.mark.parametrize("wbits", [8, 4])
def test_the_embedded_model_passes_the_lower_stage_with_fused_blocks(wbits):
    """Every block of its kinds is fused; layers, kernels, steps and a batch agree."""
    table = discover()
    model = table.create(table.get("model", "cifar10"))
    network = model.load(device="cuda", dtype=torch.float32)
    loaded = LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", 10),
        device="cuda",
    )
    state = tiny_state(loaded, Scheme(wbits=wbits, abits=8))
    lowered = CudaBackend().lower(loaded, state)
    uses = fuse(lowered.network)
    assert [] == [use for use in uses if use.reason is not None]
    modules = {n: m for n, m in lowered.network.named_modules() if isinstance(m, CudaLayer)}
    lowered = dataclasses.replace(
        lowered,
        kernels=tuple(
            dataclasses.replace(use, kernel=modules[use.layer].kernel) for use in lowered.kernels
        ),
    )
    facts = lowering_facts(
        loaded, state, lowered, simulate(loaded, state), execution="lowered", batches=(8,)
    )
    assert len(state.layers) == facts["layers"]["checked"]
    assert len(state.layers) == sum(facts["executed"].values())
    assert facts["calls"]["worst"]["relative"] <= facts["calls"]["worst"]["limit"] / 2
