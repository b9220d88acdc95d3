"""Attention of fused blocks that ends in codes by itself, by the reference of its kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import nn

from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.blocks import token_attention
from tfq_bench_cuda.blocks.fuse import BlockUse, fuse
from tfq_bench_cuda.blocks.fused import LIMIT
from tfq_bench_cuda.blocks.int8_attention import install_int8
from tfq_bench_cuda.kernels.reference import ReferenceKernels

from . import text_networks
from .kernel_blocks import difference, numbers, swap_layers

WIDTH, TOKENS, TEXT = 64, 40, 24

CLOSE = 2.0**-6
"""As in `test_blocks_transformer`, bfloat16."""


def given(words: int = 7, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """What a block is called with."""
    return {
        "hidden_states": numbers(2, TOKENS, WIDTH, seed=1).to(dtype),
        "encoder_hidden_states": numbers(2, words, TEXT, seed=2).to(dtype),
    }


def transformer(
    heads: int = 2, dtype: torch.dtype = torch.bfloat16, peak: float = 1.0, **swap: Any
) -> tuple[nn.Module, Any]:
    """A fused block of kernels and its step; `peak` multiplies queries of self-attention."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = BasicTransformerBlock(WIDTH, heads, WIDTH // heads, cross_attention_dim=TEXT)
    block.attn1.to_q.weight.data.mul_(peak)
    block = block.to(dtype).eval().requires_grad_(False)
    step = swap_layers(block, lambda: block(**given(dtype=dtype)), **swap)
    return block, step


def fused(block: nn.Module) -> tuple[nn.Module, list[BlockUse]]:
    """A network of the block alone, which is fused; and what `fuse` says of it."""
    network = nn.ModuleDict({"block": block})
    uses = fuse(network)
    assert [None] == [use.reason for use in uses]
    return network, uses


@pytest.fixture
def products(monkeypatch) -> list[str]:
    """The first products of the calls of our kernel."""
    seen: list[str] = []
    real = token_attention.attention8

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["qk"])
        return real(*args, **kwargs)

    monkeypatch.setattr(token_attention, "attention8", spy)
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("words", [7, 128])
def test_attention_to_a_text_writes_codes(products, words, dtype):
    """At every step, and as near to the layers one by one as a fused block is."""
    block, step = transformer(dtype=dtype)
    fused(block)
    for index in range(3):
        step.set(index)
        call = given(words, dtype)
        expected = type(block).forward(block, **call)
        assert difference(expected, block(**call)) < CLOSE
    assert ["bf16"] * 3 == products


def masked(words: int, shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """A call with a mask of that shape, the last two words of the second image hidden."""
    mask = torch.zeros(2, 1, words, dtype=torch.bfloat16)
    mask[1, :, -2:] = -10000.0
    return {**given(words), "encoder_attention_mask": mask.expand(shape or mask.shape)}


@pytest.mark.parametrize("words", [7, 130, 512])
def test_attention_to_a_masked_text_writes_codes(products, words):
    """What is hidden has no influence, and the codes are those of the layers one by one."""
    block, step = transformer()
    fused(block)
    step.set(1)
    call = masked(words)
    assert difference(type(block).forward(block, **call), block(**call)) < CLOSE
    assert ["bf16"] == products
    assert difference(block(**given(words)), block(**call)) > 2.0**-10


@pytest.mark.parametrize(
    ("make", "call"),
    [
        ({}, given(129)),
        ({}, masked(513)),
        ({}, masked(7, (2, TOKENS, 7))),
        ({}, {**masked(7), "encoder_attention_mask": torch.zeros(2, 1, 7)}),
        ({"dtype": torch.float32}, given(dtype=torch.float32)),
        ({"heads": 4}, given()),
        ({"splits": {"attn2.to_out.0": 32}}, given()),
    ],
    ids=[
        "many keys",
        "many keys with a mask",
        "a mask for each query",
        "a mask in float32",
        "float32",
        "heads of 16",
        "output in parts",
    ],
)
def test_what_it_cannot_write_is_attended_to_by_torch(products, make, call):
    """And quantized after it."""
    block, _ = transformer(**make)
    fused(block)
    assert difference(type(block).forward(block, **call), block(**call)) < CLOSE
    assert [] == products


@pytest.mark.parametrize("peak", [1.0, 30.0])
def test_int8_products_pass_the_watch_of_a_block(products, peak):
    """Their error is in what is added to the residual, also where attention looks at few tokens."""
    block, _ = transformer(peak=peak)
    assert {"block": None} == install_int8(*fused(block))
    call = given()
    expected = type(block).forward(block, **call)
    assert 0 < difference(expected, block(**call)) < LIMIT / 2
    handle = block.attn1.to_q.register_forward_hook(lambda *_: None)
    assert torch.equal(expected, block(**call))
    handle.remove()
    assert ["int8", "bf16"] * 2 == products


@pytest.mark.parametrize("adds", [True, False])
def test_int8_products_in_attention_of_pixels(products, kernel_block, distance, adds):
    """With and without a residual: alone, the error of attention is that of the block."""
    x = numbers(2, 64, 8, 8).to(torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    original = Attention(
        64, heads=2, dim_head=32, norm_num_groups=8, residual_connection=adds, bias=True
    )
    block, step, _ = kernel_block(original, (x,))
    assert {"block": None} == install_int8(*fused(block))
    assert 0 < distance(block, step, x) < LIMIT
    assert ["int8"] * 3 == products


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ({"dtype": torch.float32}, "the network is in float32, not in 16 bit"),
        ({"heads": 4}, "a head has 16 channels, expected one of (32, 40"),
        ({"splits": {"attn1.to_out.0": 32}}, "the output layer reads its input in parts"),
    ],
)
def test_why_products_stay_in_16_bit(products, make, reason):
    """A sentence for the record."""
    block, _ = transformer(**make)
    assert reason in install_int8(*fused(block))["block"]
    assert block.forward.attention.qk is None


def test_the_backend_records_what_its_option_did(loaded, make_state):
    """Nothing without the option; with it, every attention and why it is in 16 bit."""
    plain, asked = (
        CudaBackend(kernels=ReferenceKernels(), **options).lower(loaded, make_state()).details
        for options in ({}, {"attention": "int8"})
    )
    assert {"option": "16-bit", "int8": {}} == plain["attention"]
    assert "int8" == asked["attention"]["option"]
    assert asked["attention"]["int8"]
    assert all("float32" in reason for reason in asked["attention"]["int8"].values())


@pytest.mark.parametrize(
    ("family", "attention", "expected"),
    [("sdxl", "16-bit", {"bf16"}), ("sdxl", "int8", {"bf16", "int8"}), ("dit", "int8", {"int8"})],
)
def test_network_passes_the_lower_stage(monkeypatch, products, family, attention, expected):
    """Layer by layer, block by block and as a whole, it stays as near as a run asks for."""
    monkeypatch.setitem(text_networks.UNET, "attention_head_dim", 2)  # so many heads, of 32
    monkeypatch.setitem(text_networks.TRANSFORMER, "attention_head_dim", 32)
    loaded = text_networks.load(family, dtype=torch.bfloat16)
    state = text_networks.make_state(loaded)
    backend = CudaBackend(kernels=text_networks.OpaqueKernels(), batch=2, attention=attention)
    lowered = backend.lower(loaded, state)
    facts = lowering_facts(
        loaded, state, lowered, simulate(loaded, state), execution="lowered", batches=[3]
    )
    assert len(state.layers) == facts["layers"]["checked"]
    assert expected == set(products)
    assert {None} >= set(facts["details"]["attention"]["int8"].values())
