"""Attention of fused blocks that ends in codes by itself, by the reference of its kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from tfq_bench_cuda.blocks import token_attention
from tfq_bench_cuda.blocks.fuse import BlockUse, fuse

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


@pytest.mark.parametrize(
    ("make", "call"),
    [
        ({}, given(129)),
        ({"dtype": torch.float32}, given(dtype=torch.float32)),
        ({"heads": 4}, given()),
        ({"splits": {"attn2.to_out.0": 32}}, given()),
        ({}, {**given(), "encoder_attention_mask": torch.zeros(2, 1, 7, dtype=torch.bfloat16)}),
    ],
    ids=["many keys", "float32", "heads of 16", "output in parts", "mask"],
)
def test_what_it_cannot_write_is_attended_to_by_torch(products, make, call):
    """And quantized after it."""
    block, _ = transformer(**make)
    fused(block)
    assert difference(type(block).forward(block, **call), block(**call)) < CLOSE
    assert [] == products
