"""Whole networks with fused blocks: their predictions, and what the lower stage says of them."""

from __future__ import annotations

import dataclasses

import pytest

from tfq_bench.api import LoweringError
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench_cuda.blocks.ada_transformer import AdaZeroBlock
from tfq_bench_cuda.blocks.context import install_context

from .text_networks import at_every_step, load, lower, make_state

FUSED = {"sd": (4, 4), "sdxl": (4, 8), "dit": (0, 2), "pixart": (0, 2)}
"""How many transformers of images, and blocks inside them or alone."""

CONSTANT = ("attn2.to_k", "attn2.to_v", "caption_projection.linear_1", "linear_2")


@pytest.mark.parametrize(
    ("family", "wbits", "held"),
    [
        ("sd", 4, False),
        ("sdxl", 8, True),
        ("dit", 8, False),
        ("dit", 4, False),
        ("pixart", 8, False),
        ("pixart", 4, True),
    ],
)
def test_fused_network_passes_the_lower_stage(family, wbits, held):
    """Layer by layer, at every step and in another batch; listed kernels are those that run."""
    loaded = load(family)
    state = make_state(loaded, wbits=wbits)
    if held:
        state = at_every_step(state, *CONSTANT)
    lowered, blocks = lower(loaded, state)
    kinds = [use.kind for use in blocks if use.reason is None]
    assert FUSED[family] == tuple(
        kinds.count(kind) for kind in ("Transformer2DModel", "BasicTransformerBlock")
    )
    assert held == (install_context(lowered.network, blocks) is not None)
    facts = lowering_facts(
        loaded, state, lowered, simulate(loaded, state), execution="lowered", batches=[3]
    )
    assert len(state.layers) == facts["layers"]["checked"]


def test_a_wrong_gate_is_seen(monkeypatch):
    """The comparison has teeth: a block that forgets what its timestep does is found."""
    loaded = load("dit")
    state = make_state(loaded)
    right = AdaZeroBlock._modulations

    def wrong(self, x, timestep, class_labels):
        first, last = right(self, x, timestep, class_labels)
        return last, first

    monkeypatch.setattr(AdaZeroBlock, "_modulations", wrong)
    lowered, _ = lower(loaded, state)
    with pytest.raises(LoweringError, match=r"block 'transformer_blocks\.0': fused"):
        lowering_facts(loaded, state, lowered, simulate(loaded, state), execution="lowered")


def test_layers_in_float_leave_the_block_unfused():
    """A layer that is simulated is named; the others of the block run one by one."""
    loaded = load("dit")
    state = make_state(loaded)
    name = "transformer_blocks.1.attn1.to_v"
    part = dataclasses.replace(state.layers[name].parts[0], activation=None)
    layer = dataclasses.replace(state.layers[name], parts=(part,))
    state = dataclasses.replace(state, layers={**state.layers, name: layer})
    _, blocks = lower(loaded, state)
    first, second = (use for use in blocks if use.kind == "BasicTransformerBlock")
    assert first.reason is None
    assert "layer 'attn1.to_v' has no int8 kernel, it is a SimulatedLayer" == second.reason
    assert 6 == len(first.layers)
    assert 8 == len(second.layers)  # of these five, and three that modulate
