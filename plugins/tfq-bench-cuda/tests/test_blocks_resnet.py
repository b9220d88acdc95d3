"""Fused blocks of convolutional U-Nets against their layers one by one, on the CPU.

Both ways multiply the same integers. They differ in what is rounded before: group norms add up in
another order, and values between two layers keep float32 where single layers round to the
network's type. Either may move a value across the border of two codes. So a pass without a norm
gives equal bits, `CLOSE` bounds the others: a few codes of all in float32, and in bfloat16 its
rounding, 2^-9 of a value, against the 2^-5 that `FusedBlock` allows.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from tfq_bench.quant.lower.attention import AttentionProcessor
from tfq_bench_cuda.blocks.fuse import fuse
from tfq_bench_cuda.kernels.reference import ReferenceKernels

CLOSE = {torch.float32: 2.0**-10, torch.bfloat16: 2.0**-6}

FEATURES = 24

in_both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


class NamedEndings(ReferenceKernels):
    """Kernels whose names say how their products end, as those of compiled ones do."""

    def name(self, spec):
        return f"{super().name(spec)} {spec.ending}".rstrip()


@pytest.fixture(autouse=True)
def same_numbers():
    """Fresh weights and inputs are equal in every test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def resnet(inputs=32, outputs=48, **kwargs):
    """A block with fresh weights."""
    kwargs = {"temb_channels": FEATURES, "groups": 8, **kwargs}
    return ResnetBlock2D(in_channels=inputs, out_channels=outputs, **kwargs)


def attention(**kwargs):
    """As `UNet2DModel` has it: four heads of eight channels, normalized and added to its input."""
    settings = {"norm_num_groups": 8, "residual_connection": True, "bias": True, **kwargs}
    return Attention(32, heads=4, dim_head=8, **settings)


def images(channels=32, size=(6, 5), dtype=torch.float32, last=True):
    """`[2, channels, *size]`, with channels of different spread, in one of both layouts."""
    x = torch.randn(2, channels, *size) * torch.rand(channels, 1, 1) + torch.randn(channels, 1, 1)
    x = x.to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def fused(block):
    """The block, which is known and has no reason not to be fused."""
    (use,) = fuse(nn.ModuleDict({"block": block}))
    assert use.reason is None
    return block


def reason(block):
    """Why a block is not fused; it stays as it was."""
    (use,) = fuse(nn.ModuleDict({"block": block}))
    assert "forward" not in vars(block)
    return use.reason


@in_both_types
@pytest.mark.parametrize("wbits", [8, 4])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "planes"])
@pytest.mark.parametrize("outputs", [48, 32], ids=["shortcut", "same width"])
def test_resnet(kernel_block, distance, outputs, last, wbits, dtype):
    """With and without a shortcut, from both layouts, at every step's tables."""
    inputs = (images(dtype=dtype, last=last), torch.randn(2, FEATURES).to(dtype))
    block, step, _ = kernel_block(resnet(outputs=outputs), inputs, wbits=wbits)
    assert distance(fused(block), step, *inputs) <= CLOSE[dtype]


@in_both_types
def test_resnet_that_reads_a_concatenation(kernel_block, distance, dtype):
    """Both parts of convolution and shortcut have codes of their own, of 13 channels and 19."""
    inputs = (images(dtype=dtype), torch.randn(2, FEATURES).to(dtype))
    splits = {"conv1": 13, "conv_shortcut": 13}
    block, step, _ = kernel_block(resnet(), inputs, splits=splits, wbits=4)
    assert distance(fused(block), step, *inputs) <= CLOSE[dtype]


@pytest.mark.parametrize(
    ("settings", "keep"),
    [
        ({"temb_channels": None}, ()),
        ({"skip_time_act": True}, ()),
        ({}, ("time_emb_proj",)),
        ({"groups_out": 4, "conv_shortcut_bias": False, "eps": 1e-3}, ()),
    ],
    ids=["no time", "active time", "projection in float", "other groups"],
)
def test_resnet_as_it_may_be_built(kernel_block, distance, settings, keep):
    """The pass follows the block's own settings."""
    time = None if "temb_channels" in settings else torch.randn(2, FEATURES)
    inputs = (images(), time)
    block, step, _ = kernel_block(resnet(**settings), inputs, keep=keep)
    assert distance(fused(block), step, *inputs) <= CLOSE[torch.float32]


def test_resnet_runs_what_its_layers_are_listed_with(kernel_block):
    """Each layer once, under the name of the kernel that ends its product so."""
    inputs = (images(), torch.randn(2, FEATURES))
    block, _, executed = kernel_block(resnet(), inputs, kernels=NamedEndings())
    fused(block)
    assert block.conv1.kernel.endswith(" shift")
    assert block.conv2.kernel.endswith(" residual")
    block(*inputs)
    layers = (block.conv1, block.conv2, block.conv_shortcut, block.time_emb_proj)
    assert Counter(layer.kernel for layer in layers) == executed


@in_both_types
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "planes"])
def test_upsampling_gives_the_bits_of_its_layers(kernel_block, distance, last, dtype):
    """A code does not depend on whether it is made before or after pixels are doubled."""
    x = images(dtype=dtype, last=last)
    original = Upsample2D(32, use_conv=True, out_channels=40)
    block, step, _ = kernel_block(original, (x,), splits={"conv": 13})
    assert distance(fused(block), step, x) == 0


def test_upsampling_to_another_size_goes_layer_by_layer(kernel_block):
    """As a U-Net asks for it when a side is odd."""
    x = images()
    block, _, _ = kernel_block(Upsample2D(32, use_conv=True), (x,))
    expected = block(x, (11, 10))
    assert torch.equal(expected, fused(block)(x, (11, 10)))
    assert torch.equal(block(x), block(x, (12, 10)))


@in_both_types
@pytest.mark.parametrize("size", [(6, 5), (8, 8)])
def test_downsampling_gives_the_bits_of_its_layers(kernel_block, distance, size, dtype):
    """Zeros that are known to the kernel count like those that were written, at every step."""
    x = images(size=size, dtype=dtype)
    original = Downsample2D(32, use_conv=True, padding=0, name="op")
    block, step, executed = kernel_block(original, (x,))
    assert distance(fused(block), step, x) == 0
    assert {block.conv.kernel: 6} == executed
    assert [(1, 1)] == [spec.geometry.beyond for spec in block.conv.running]


@in_both_types
@pytest.mark.parametrize("dims", [4, 3])
@pytest.mark.parametrize("settings", [{}, {"residual_connection": False}], ids=["added", "alone"])
def test_attention(kernel_block, distance, settings, dims, dtype):
    """One product for queries, keys and values; images and rows of pixels."""
    x = images(dtype=dtype)
    x = x if dims == 4 else x.flatten(2).transpose(1, 2)
    block, step, _ = kernel_block(attention(**settings), (x,), wbits=4)
    found = distance(fused(block), step, x, laid_out=dims == 4)
    assert found <= CLOSE[dtype]


def test_attention_runs_one_product_for_three_layers(kernel_block):
    """All three are listed with it, and it counts for each of them."""
    x = images()
    block, _, executed = kernel_block(attention(), (x,), kernels=NamedEndings())
    fused(block)
    assert [96] * 3 == [layer.running[0].n for layer in (block.to_q, block.to_k, block.to_v)]
    assert block.to_out[0].kernel.endswith(" residual")
    block(x)
    assert {block.to_q.kernel: 3, block.to_out[0].kernel: 1} == executed


def test_attention_whose_layers_quantize_otherwise_than_each_other(kernel_block, distance):
    """Keys are a product of codes of their own; queries and values remain one."""
    x = images()
    block, step, executed = kernel_block(attention(), (x,))
    block.to_k.parts[0].inverse.mul_(0.5)
    block.to_k.parts[0].scale.mul_(2)
    assert distance(fused(block), step, x) <= CLOSE[torch.float32]
    executed.clear()
    block(x)
    assert sum(executed.values()) == 4
    assert [64, 32, 64] == [layer.running[0].n for layer in (block.to_q, block.to_k, block.to_v)]


def test_attention_to_something_else_goes_layer_by_layer(kernel_block):
    """Other tokens may come with any call, and a mask; or another type."""
    x = images().flatten(2).transpose(1, 2)
    tokens = torch.randn(2, 7, 32)
    block, _, _ = kernel_block(attention(), (x,))
    expected = block(x, tokens)
    assert torch.equal(expected, fused(block)(x, tokens))
    block.group_norm.double()
    assert torch.equal(type(block).forward(block, x.double()), block(x.double()))


def quantized_inside():
    """An attention whose own products are quantized."""
    block = attention()
    block.set_processor(AttentionProcessor(lambda _, x: x))
    return block


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: resnet(up=True), "changes the resolution"),
        (lambda: resnet(down=True), "changes the resolution"),
        (lambda: resnet(time_embedding_norm="scale_shift"), "'scale_shift'"),
        (lambda: resnet(output_scale_factor=2.0), "divides its output by 2.0"),
        (lambda: resnet(non_linearity="gelu"), "GELU instead of SiLU"),
        (lambda: resnet(dropout=0.1), "drops values out"),
        (lambda: Upsample2D(32, use_conv=True, interpolate=False), "nearest neighbour"),
        (lambda: Upsample2D(32, use_conv=True, norm_type="rms_norm", eps=1e-5), "normalizes"),
        (lambda: Downsample2D(32, use_conv=True, padding=1, name="op"), "nothing else"),
        (quantized_inside, "computed by AttentionProcessor"),
        (lambda: attention(norm_num_groups=None), "no group norm"),
        (lambda: attention(cross_attention_dim=32), "its own pixels"),
        (lambda: attention(rescale_output_factor=2.0), "scales its output"),
        (lambda: attention(qk_norm="layer_norm"), "'norm_q'"),
    ],
)
def test_why_a_block_is_not_fused(kernel_block, build, expected):
    """It is built in a way that the pass does not know, which the reason names."""
    original = build()
    time = [torch.randn(2, FEATURES)] if isinstance(original, ResnetBlock2D) else []
    block, _, _ = kernel_block(original, (images(), *time))
    assert expected in reason(block)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv_shortcut"])
def test_a_layer_without_a_kernel_is_named(kernel_block, layer):
    """A block with a convolution in float is left to its layers."""
    inputs = (images(), torch.randn(2, FEATURES))
    block, _, _ = kernel_block(resnet(), inputs, keep=(layer,))
    assert f"layer '{layer}' has no int8 kernel, it is a Conv2d" == reason(block)
