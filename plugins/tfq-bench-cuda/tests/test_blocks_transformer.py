"""Fused transformer blocks against their layers one by one, with the kernels' reference.

Both compute the same sums of integers. In float32 they differ in how a norm adds up its mean, so
hardly a code crosses a border of rounding; in bfloat16 the layers round what the fused pass does
not, and some codes move by one of 256.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from tfq_bench.api import LoweringError, StepCursor
from tfq_bench_cuda.blocks.ada_transformer import transformer_block
from tfq_bench_cuda.blocks.fused import Unfusable
from tfq_bench_cuda.blocks.transformer import TransformerBlock
from tfq_bench_cuda.layers import CudaLinear

from .kernel_blocks import difference, numbers, swap_layers
from .text_networks import steady

WIDTH, HEADS, TOKENS, TEXT, WORDS = 64, 4, 10, 24, 7

LIMITS = {torch.float32: 2.0**-9, torch.bfloat16: 2.0**-6}
"""A code is 2^-8 of its range; a few of them, or a rounding to 8 bits in the residual."""

FORMS: dict[str, dict[str, Any]] = {
    "sd": {"cross_attention_dim": TEXT},
    "textless": {},
    "dit": {
        "norm_type": "ada_norm_zero",
        "num_embeds_ada_norm": 5,
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
        "attention_bias": True,
    },
    "pixart": {
        "norm_type": "ada_norm_single",
        "cross_attention_dim": TEXT,
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
        "attention_bias": True,
        "norm_eps": 1e-6,
    },
}


def block_of(form: str, **changes: Any) -> BasicTransformerBlock:
    """A block with random weights, norms included."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = BasicTransformerBlock(WIDTH, HEADS, WIDTH // HEADS, **{**FORMS[form], **changes})
        for module in block.modules():
            if isinstance(module, nn.LayerNorm) and module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(std=0.2)
    return block.eval().requires_grad_(False)


def given(form: str, dtype: torch.dtype = torch.float32, images: int = 2) -> dict[str, Any]:
    """What such a block is called with."""
    x = numbers(images, TOKENS, WIDTH, seed=1)
    x += numbers(images, 1, 1, seed=2)  # so that rows of one image are not those of another
    call: dict[str, Any] = {"hidden_states": x.to(dtype)}
    if "cross_attention_dim" in FORMS[form]:
        call["encoder_hidden_states"] = numbers(images, WORDS, TEXT, seed=3).to(dtype)
    if form == "dit":
        call["timestep"] = torch.tensor([500, 20, 700][:images])
        call["class_labels"] = torch.tensor([1, 4, 2][:images])
    if form == "pixart":
        call["timestep"] = numbers(images, 6 * WIDTH, seed=4).to(dtype)
        kept = torch.arange(WORDS) < torch.tensor([[3], [6], [5]][:images])
        call["encoder_attention_mask"] = ((1 - kept.to(dtype)) * -10000.0)[:, None]
    return call


def fused_block(
    form: str,
    dtype: torch.dtype = torch.float32,
    block: BasicTransformerBlock | None = None,
    **swap: Any,
) -> tuple[TransformerBlock, StepCursor]:
    """The fused pass of a block of kernels, installed."""
    block = (block_of(form) if block is None else block).to(dtype)
    step = swap_layers(block, lambda: block(**given(form, dtype)), **swap)
    fused = transformer_block("block", block)
    fused.install()
    return fused, step


def apart(fused: TransformerBlock, step: StepCursor, call: dict[str, Any]) -> float:
    """The largest difference of both ways at any step."""
    found = []
    for index in range(3):
        step.set(index)
        expected = fused._single(**call)
        found.append(difference(expected, fused.block(**call)))
    return max(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("bits", [(8, 8), (4, 8)], ids=["W8A8", "W4A8"])
@pytest.mark.parametrize("form", FORMS)
def test_block_gives_what_its_layers_give_one_by_one(form, bits, dtype):
    """Each form, at steps with other tables, for one and for several images."""
    fused, step = fused_block(form, dtype, wbits=bits[0], abits=bits[1])
    for images in (2, 1, 3):
        assert apart(fused, step, given(form, dtype, images)) < LIMITS[dtype]


@pytest.mark.parametrize("form", FORMS)
def test_steps_have_tables_of_their_own(form):
    """What is computed at one step is not what is at another."""
    fused, step = fused_block(form)
    outputs = []
    for index in (0, 2):
        step.set(index)
        outputs.append(fused.block(**given(form)))
    assert not torch.equal(*outputs)


@pytest.mark.parametrize(
    ("ranges", "products"),
    [
        ({}, 1),
        ({"attn1.to_v": (-2.0, 3.0)}, 2),
        ({"attn1.to_k": (-2.0, 3.0)}, 2),
        ({"attn1.to_k": (-2.0, 3.0), "attn1.to_v": (-4.0, 3.0)}, 3),
    ],
)
def test_layers_that_quantize_alike_share_codes_and_product(ranges, products):
    """Queries, keys and values with one table, two or three."""
    fused, step = fused_block("sd", ranges=ranges)
    assert products == len(fused.attention.tables)
    assert apart(fused, step, given("sd")) < LIMITS[torch.float32]


def test_kernels_are_listed_as_they_run():
    """What a layer is listed with is what was counted, once a layer; the joined ones are wider."""
    fused, _ = fused_block("sd")
    fused.block(**given("sd"))
    for layer in fused.layers:
        assert layer.executed == {layer.kernel: 1}
    names = {name for name, m in fused.block.named_modules() if isinstance(m, CudaLinear)}
    assert len(names) == len(fused.layers) == 10
    (joined,) = fused.block.attn1.to_v.running
    assert 3 * WIDTH == joined.n
    assert "int8" == fused.block.ff.net[0].proj.runs.out
    assert "bfloat16" == fused_block("sd", torch.bfloat16)[0].block.attn2.to_out[0].runs.residual


@pytest.mark.parametrize("abits", [8, 6])
@pytest.mark.parametrize("activation", ["geglu", "gelu", "gelu-approximate"])
@pytest.mark.parametrize(("inner", "coded"), [(96, True), (80, False)])
def test_feed_forward_ends_in_codes_where_rows_fit(activation, inner, coded, abits):
    """Codes of the next layer, in its bits; else the activation is torch's."""
    block = block_of("sd", activation_fn=activation, ff_inner_dim=inner)
    fused, step = fused_block("sd", block=block, abits=abits)
    assert coded == fused.feed_forward.ends_in_codes
    assert not coded or abits == fused.block.ff.net[0].proj.runs.bits
    assert apart(fused, step, given("sd")) < 4 * LIMITS[torch.float32] * 2 ** (8 - abits)


def test_feed_forward_reads_a_split_input():
    """The second layer in two parts, with tables of their own."""
    block = block_of("sd")
    fused, step = fused_block("sd", block=block, splits={"ff.net.2": 128})
    assert 2 == len(fused.block.ff.net[2].parts)
    assert not fused.feed_forward.ends_in_codes
    assert apart(fused, step, given("sd")) < LIMITS[torch.float32]


def test_masks_are_applied():
    """Of tokens in self-attention and of words: what is masked changes nothing."""
    fused, step = fused_block("sd")
    call = given("sd")
    kept = torch.arange(TOKENS) < 6
    call["attention_mask"] = ((1 - kept.float()) * -10000.0).expand(2, 1, TOKENS)
    words = torch.arange(WORDS) < 4
    call["encoder_attention_mask"] = ((1 - words.float()) * -10000.0).expand(2, 1, WORDS)
    assert apart(fused, step, call) < LIMITS[torch.float32]
    before = fused.block(**call)
    call["encoder_hidden_states"][:, 4:] = 9.0
    assert torch.equal(before, fused.block(**call))


def test_adapters_run_layer_by_layer():
    """Arguments for the processors are not lost."""
    fused, _ = fused_block("sd")
    call = {**given("sd"), "cross_attention_kwargs": {"temb": None}}
    fused.attention.attend = None
    assert torch.equal(fused._single(**call), fused.block(**call))


def test_a_watched_layer_runs_both_ways():
    """The layer is seen, the output is the single layers', and a wrong pass is found."""
    fused, _ = fused_block("pixart")
    seen = []
    fused.block.ff.net[2].register_forward_hook(lambda *_: seen.append(True))
    call = given("pixart")
    assert torch.equal(fused._single(**call), fused.block(**call))
    assert seen == [True, True]
    fused.cross.attend = lambda q, k, v, _: torch.nn.functional.scaled_dot_product_attention(
        q, k, v
    )
    with pytest.raises(LoweringError, match="block 'block': fused, its output"):
        fused.block(**call)


def replaced(path: str, value: Any) -> Any:
    """A change of a block: something else at a path."""

    def change(block: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(block.get_submodule(parent), name, value)

    return change


@pytest.mark.parametrize(
    ("form", "changes", "change", "reason"),
    [
        ("sd", {}, replaced("attn2.to_k", nn.Linear(TEXT, WIDTH)), "layer 'attn2.to_k' has no"),
        ("sd", {}, replaced("attn1.processor", AttnProcessor()), "processor AttnProcessor,"),
        ("sd", {}, replaced("attn1.norm_q", nn.LayerNorm(16)), "attention 'attn1' has a 'norm_q'"),
        ("sd", {}, replaced("attn2.added_kv_proj_dim", 8), "added keys and values"),
        ("sd", {}, replaced("attn2.residual_connection", True), "adds or scales"),
        ("sd", {}, lambda block: block.set_chunk_feed_forward(2), "in chunks"),
        ("sd", {"activation_fn": "swiglu"}, None, "the activation of 'ff' is SwiGLU"),
        ("sd", {"attention_type": "gated"}, None, "GLIGEN"),
        ("sd", {"double_self_attention": True}, None, "second attention reads no text"),
        (
            "textless",
            {"positional_embeddings": "sinusoidal", "num_positional_embeddings": TOKENS},
            None,
            "adds positions",
        ),
        ("textless", {}, replaced("norm_type", "ada_norm"), "of the kind 'ada_norm'"),
    ],
)
def test_other_forms_say_why(form, changes, change, reason):
    """And nothing of the block is touched."""
    block = block_of(form, **changes)
    if changes.get("double_self_attention"):
        swap_layers(block, lambda: None)
    else:
        swap_layers(block, lambda: block(**given(form)))
    if change is not None:
        change(block)
    layers = [m for m in block.modules() if isinstance(m, CudaLinear)]
    before = [layer.runs for layer in layers]
    with pytest.raises(Unfusable, match=reason):
        transformer_block("block", block)
    assert before == [layer.runs for layer in layers]
    assert all(layer.formed_by is None for layer in layers)


def test_tables_that_differ_by_step_are_remarked():
    """Keys and values of the text are then no matter of the prompt alone."""
    assert "at every step" in fused_block("sd")[0].remarks[0]

    def text(name: str, layer: Any) -> Any:
        return steady(layer) if name.startswith("attn2.to_") else layer

    assert () == fused_block("sd", change=text)[0].remarks
