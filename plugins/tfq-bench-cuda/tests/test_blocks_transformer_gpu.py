"""Fused transformer blocks on a GPU: against their layers, the reference, and within a graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.api import StepCursor
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench_cuda.blocks.ada_transformer import transformer_block
from tfq_bench_cuda.blocks.attend import attend
from tfq_bench_cuda.blocks.context import install_context
from tfq_bench_cuda.blocks.fuse import BlockUse
from tfq_bench_cuda.blocks.fused import LIMIT as WATCHED
from tfq_bench_cuda.blocks.int8_attention import install_int8
from tfq_bench_cuda.blocks.transformer import TransformerBlock
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.kernels.tiles import TileChoice
from tfq_bench_cuda.machine import check_machine

from .kernel_blocks import difference, numbers, swap_layers
from .text_networks import at_every_step, load, lower, make_state, predict

pytestmark = pytest.mark.gpu

LIMIT = 2.0**-6
"""As in `test_blocks_transformer`, bfloat16."""

IMAGES, TOKENS, WORDS = 2, 256, 77

ADA = {
    "activation_fn": "gelu-approximate",
    "norm_elementwise_affine": False,
    "attention_bias": True,
}
FORMS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "sdxl 640": (640, 10, {"cross_attention_dim": 2048}),
    "sdxl 1280": (1280, 20, {"cross_attention_dim": 2048}),
    "sd 320": (320, 8, {"cross_attention_dim": 768}),
    "dit 1152": (1152, 16, {**ADA, "norm_type": "ada_norm_zero", "num_embeds_ada_norm": 5}),
    "pixart 1152": (
        1152,
        16,
        {**ADA, "norm_type": "ada_norm_single", "cross_attention_dim": 1152, "norm_eps": 1e-6},
    ),
}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Of this machine's GPU."""
    return Kernels(check_machine("cuda"), "cuda")


def given(form: str) -> dict[str, Tensor]:
    """What such a block is called with, bfloat16 on the GPU."""
    width, _, options = FORMS[form]
    call = {"hidden_states": numbers(IMAGES, TOKENS, width, seed=1)}
    if "cross_attention_dim" in options:
        call["encoder_hidden_states"] = numbers(
            IMAGES, WORDS, options["cross_attention_dim"], seed=3
        )
    if "ada_norm_single" in options.values():
        call["timestep"] = numbers(IMAGES, 6 * width, seed=4)
        kept = torch.arange(WORDS) < torch.tensor([[30], [77]])
        call["encoder_attention_mask"] = ((1 - kept.float()) * -10000.0)[:, None]
    found = {name: value.to("cuda", torch.bfloat16) for name, value in call.items()}
    if "ada_norm_zero" in options.values():
        found["timestep"] = torch.tensor([500, 20], device="cuda")
        found["class_labels"] = torch.tensor([1, 4], device="cuda")
    return found


def fused_block(form: str, kernels: Any, wbits: int = 8) -> tuple[TransformerBlock, StepCursor]:
    """The fused pass of a block whose layers run `kernels`."""
    width, heads, options = FORMS[form]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block: nn.Module = BasicTransformerBlock(width, heads, width // heads, **options)
    block = block.to("cuda", torch.bfloat16).eval().requires_grad_(False)
    step = swap_layers(
        block,
        lambda: block(**given(form)),
        kernels=kernels,
        tiles=TileChoice(arch=check_machine("cuda"), rows=IMAGES * TOKENS),
        device="cuda",
        wbits=wbits,
    )
    fused = transformer_block("block", block)
    fused.install()
    return fused, step


@pytest.mark.parametrize("form", FORMS)
def test_block_gives_what_its_layers_give_and_the_reference(kernels, form):
    """At steps with other tables; the reference forms its products in float64."""
    fused, step = fused_block(form, kernels, wbits=4)
    kernels.prepare(spec for layer in fused.layers for spec in layer.running)
    reference, other = fused_block(form, ReferenceKernels(), wbits=4)
    for index in range(3):
        step.set(index)
        other.set(index)
        found = fused.block(**given(form))
        assert difference(fused._single(**given(form)), found) < LIMIT
        assert difference(reference.block(**given(form)), found) < LIMIT


@pytest.mark.parametrize("form", ["sdxl 1280", "dit 1152", "pixart 1152"])
def test_block_runs_in_a_graph_at_every_step(kernels, form):
    """Nothing is read on the host; what is captured at one step gives the bits of the others."""
    fused, step = fused_block(form, kernels)
    call, expected = given(form), []
    for index in range(3):
        step.set(index)
        expected.append(fused.block(**call))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = fused.block(**call)
    for index in range(3):
        step.set(index)
        graph.replay()
        assert torch.equal(expected[index], found)
    assert not torch.equal(expected[0], expected[2])


@pytest.mark.parametrize("form", ["sdxl 640", "sd 320", "dit 1152"])
def test_self_attention_in_int8_passes_the_watch_of_its_block(kernels, form):
    """The same bits twice, other ones than with 16-bit products, and those of a graph."""
    fused, step = fused_block(form, kernels)
    call = given(form)
    half = fused.block(**call)
    use = BlockUse(name="block", kind="BasicTransformerBlock", layers=())
    assert {"block": None} == install_int8(nn.ModuleDict({"block": fused.block}), [use])
    expected = fused.block(**call)
    assert not torch.equal(half, expected)
    assert difference(fused._single(**call), expected) < WATCHED / 2
    assert torch.equal(expected, fused.block(**call))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = fused.block(**call)
    step.set(2)
    graph.replay()
    assert torch.equal(fused.block(**call), found)
    assert not torch.equal(expected, found)


@pytest.mark.parametrize("form", ["sdxl 1280", "sd 320"])
def test_attention_to_a_text_launches_one_kernel(kernels, form):
    """No attention of torch, and nothing that quantizes its result."""
    fused, _ = fused_block(form, kernels)
    cross = fused.cross
    assert cross is not None
    rows = numbers(IMAGES * TOKENS, FORMS[form][0]).to("cuda", torch.bfloat16)
    k, v = (numbers(IMAGES * WORDS, FORMS[form][0], seed=s).to(rows) for s in (1, 2))
    cross._mixed(rows, k, v, IMAGES, None)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        (codes,) = cross._mixed(rows, k, v, IMAGES, None)
        torch.cuda.synchronize()
    assert ["attend"] == [
        event.key for event in profile.key_averages() if event.self_device_time_total
    ]
    assert (torch.int8, len(rows)) == (codes.dtype, codes.flatten(0, 1).shape[0])


class Spy(TorchDispatchMode):
    """The names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [40, 64, 72, 80])
def test_attention_runs_in_cudnn_and_moves_nothing(size):
    """On views of one product; what comes out has the channels of all heads side by side."""
    y = torch.randn(2 * TOKENS, 3 * 8 * size, device="cuda", dtype=torch.bfloat16)
    q, k, v = (piece.view(2, TOKENS, 8, size).transpose(1, 2) for piece in y.split(8 * size, dim=1))
    with Spy() as spy:
        mixed = attend(q, k, v, None)
    assert "_scaled_dot_product_cudnn_attention" in spy.names
    assert not spy.names & {"clone", "contiguous", "copy_"}
    assert mixed.transpose(1, 2).is_contiguous()
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert difference(expected, mixed.double()) < 2.0**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["sd", "sdxl", "dit", "pixart"])
def test_fused_network_passes_the_lower_stage(kernels, family, dtype):
    """Tiny networks on compiled kernels, with keys and values of the text held."""
    loaded = load(family, dtype=dtype, device="cuda")
    state = at_every_step(
        make_state(loaded), "attn2.to_k", "attn2.to_v", "caption_projection.linear_1", "linear_2"
    )
    lowered, blocks = lower(loaded, state, kernels)
    assert all(use.reason is None for use in blocks if "Transformer" in use.kind)
    install_context(lowered.network, blocks)
    lowering_facts(
        loaded, state, lowered, simulate(loaded, state), execution="lowered", batches=[3]
    )


def test_a_graph_reads_the_text_that_is_held(kernels):
    """Captured with one text, replayed with another: the cache is updated outside of the graph."""
    loaded = load("sdxl", dtype=torch.bfloat16, device="cuda")
    state = at_every_step(make_state(loaded), "attn2.to_k", "attn2.to_v")
    lowered, blocks = lower(loaded, state, kernels)
    cache = install_context(lowered.network, blocks)
    assert cache is not None
    x = torch.randn(2, 4, 8, 8, device="cuda")
    text = loaded.model.conditions(range(2), device="cuda")["text"].to(torch.bfloat16)
    # Only keys and values differ: what is pooled stays.
    predict(loaded, lowered.network, x)
    block = lowered.network.mid_block.attentions[0]
    hidden = torch.randn(2, 64, 4, 4, device="cuda", dtype=torch.bfloat16)
    block(hidden, encoder_hidden_states=text)
    version, graph = cache.version, torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = block(hidden, encoder_hidden_states=text).sample
    other = text.flip(0) * 0.5
    assert cache.update(other)
    assert version == cache.version
    expected = block(hidden, encoder_hidden_states=other).sample
    graph.replay()
    assert torch.equal(expected, found)
