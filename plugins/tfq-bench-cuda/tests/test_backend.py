"""Whole networks, the kernels' arithmetic in plain torch: the bits of the simulation; fallbacks."""

from __future__ import annotations

import copy
import dataclasses
import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from tfq_bench.api import LoweringError
from tfq_bench.pipeline.agreement import DRIFT
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.lowering import int8_refusal
from tfq_bench.quant.lower.parity import network_parity
from tfq_bench.quant.lower.simulate import SIMULATED_KERNEL, simulate
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme
from tfq_bench_cuda.backend import CudaBackend, _rehearse
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.network import _original_reason


def backend(**options) -> CudaBackend:
    """The backend without a GPU."""
    return CudaBackend(kernels=ReferenceKernels(), **options)


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (6, 8), (4, 8), (6, 6)])
def test_network_gives_the_bits_of_the_simulation(loaded, images, make_state, wbits, abits):
    """A U-Net of diffusers with a split layer, at every step."""
    state = make_state(wbits=wbits, abits=abits)
    lowered, simulated = backend(blocks=False).lower(loaded, state), simulate(loaded, state)
    outputs = []
    for index in range(3):
        lowered.step.set(index)
        simulated.step.set(index)
        t = torch.full((2,), 500)
        expected = loaded.model.predict(simulated.network, images, t, {})
        found = loaded.model.predict(lowered.network, images, t, {})
        assert torch.equal(expected, found)
        outputs.append(found)
    assert not torch.equal(outputs[0], outputs[2])
    left = [m for m in lowered.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert left == []


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("weights", "wbits"), [("int8", 4), ("packed", 4), ("packed", 8)])
def test_every_combination_of_options_is_right(
    loaded, images, make_state, blocks, graph, weights, wbits
):
    """Without fused passes to the bit; with them, no further off than a run allows."""
    state = make_state(wbits=wbits)
    lowered = backend(blocks=blocks, graph=graph, weights=weights).lower(loaded, state)
    t = torch.full((2,), 500)
    with torch.no_grad():
        expected = loaded.model.predict(simulate(loaded, state).network, images, t, {})
        found = loaded.model.predict(lowered.network, images, t, {})
    fused = [use for use in lowered.details["blocks"] if use["reason"] is None]
    if fused:
        assert blocks
        full = loaded.model.predict(loaded.network, images, t, {})
        assert (found - expected).norm() < DRIFT * (expected - full).norm()
    else:
        assert torch.equal(expected, found)
    assert len(state.layers) == sum(lowered.executed.values())
    assert lowered.details["graph"]["reason"]


def test_packed_weights_take_half_of_the_bytes(loaded, make_state):
    """The buffer that they are unpacked to is counted; 8-bit weights stay as they are."""
    whole, packed = (
        backend(weights=weights).lower(loaded, make_state(wbits=4)).details["weights"]
        for weights in ("int8", "packed")
    )
    assert (0, 0) == (whole["packed_bytes"], whole["scratch_bytes"])
    assert 2 * packed["packed_bytes"] == whole["int8_bytes"] == whole["bytes"]
    assert packed["bytes"] == packed["packed_bytes"] + packed["scratch_bytes"]
    assert {} == packed["not_packed"]
    eight = backend(weights="packed").lower(loaded, make_state(wbits=8)).details["weights"]
    assert whole["bytes"] == eight["int8_bytes"] == eight["bytes"]


def test_a_state_is_read_once(loaded, make_state):
    """Layers on disk are unpacked whenever they are looked at, so they are looked at once."""

    class Layers(dict):
        seen: ClassVar[list[str]] = []

        def __getitem__(self, name):
            self.seen.append(name)
            return super().__getitem__(name)

    state = make_state()
    names = list(state.layers)
    lowered = backend().lower(loaded, dataclasses.replace(state, layers=Layers(state.layers)))
    assert sorted(names) == sorted(Layers.seen)
    assert names == [use.layer for use in lowered.kernels]


def test_a_rehearsal_leaves_nothing_behind():
    """Its numbers are wrong: no count of them stays, and no hook of the network keeps them."""
    loaded = load_tiny()
    made = SimpleNamespace(network=copy.deepcopy(loaded.network), executed={"kernel": 1})
    called = []
    made.network.register_forward_pre_hook(lambda *_: called.append("hook"))
    rehearsed = []
    made.network.first.register_forward_hook(lambda *_: rehearsed.append("block"))
    _rehearse(loaded, made, SimpleNamespace(rehearsal=nullcontext))
    assert (["block"], [], {}) == (rehearsed, called, made.executed)
    t = torch.full((1,), loaded.sampler.timesteps[0])
    loaded.model.predict(made.network, torch.zeros(1, *loaded.model.latent_shape), t, {})
    assert ["hook"] == called


def test_a_rehearsal_in_the_networks_own_type():
    """The tiny model's `predict` leaves its input as it is, and torch refuses a mix."""
    loaded = load_tiny()
    loaded.network.to(torch.bfloat16)
    made = SimpleNamespace(network=copy.deepcopy(loaded.network), executed={})
    given = []
    made.network.register_forward_pre_hook(lambda *_: given.append("kept"))
    made.network.first.register_forward_pre_hook(lambda _, args: given.append(args[0].dtype))
    _rehearse(loaded, made, SimpleNamespace(rehearsal=nullcontext))
    assert [torch.bfloat16] == given


def test_details_are_plain_json(loaded, make_state):
    """They go into the lower stage's result."""
    details = backend().lower(loaded, make_state()).details
    assert details == json.loads(json.dumps(details))
    assert {"architecture", "blocks", "weights", "seconds", "graph", "products"} <= set(details)
    assert {"weights", "kernels"} <= set(details["seconds"])


def test_a_code_that_is_off_by_one_is_seen(loaded, images, make_state):
    """The comparison above has teeth: one weight code of one layer changes the output."""
    state = make_state()
    name = "mid_block.resnets.0.conv1"
    part = state.layers[name].parts[0]
    weight = part.weight.clone()
    weight[0, 0, 1, 1] += 1 if weight[0, 0, 1, 1] < 255 else -1
    layer = dataclasses.replace(
        state.layers[name], parts=(dataclasses.replace(part, weight=weight),)
    )
    other = dataclasses.replace(state, layers={**state.layers, name: layer})
    t = torch.full((2,), 500)
    expected = loaded.model.predict(simulate(loaded, state).network, images, t, {})
    lowered = backend(blocks=False).lower(loaded, other)
    found = loaded.model.predict(lowered.network, images, t, {})
    assert not torch.equal(expected, found)


class OpaqueKernels(ReferenceKernels):
    """As compiled kernels look from outside: no operator of torch multiplies."""

    def linear(self, *args, **kwargs):
        with _disable_current_modes():
            return super().linear(*args, **kwargs)

    def conv2d(self, *args, **kwargs):
        with _disable_current_modes():
            return super().conv2d(*args, **kwargs)


def test_lowered_tiny_model_passes_the_lower_stage(layer_outputs):
    """Every listed kernel runs and is checked; each layer and the network give the same bits."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    lowered = CudaBackend(kernels=OpaqueKernels()).lower(loaded, state)
    simulated = simulate(loaded, state)
    facts = lowering_facts(loaded, state, lowered, simulated, execution="lowered")
    assert 0.0 == facts["parity"]["max_abs"]
    assert len(state.layers) == facts["layers"]["checked"]
    assert len(state.layers) == sum(facts["executed"].values())
    expected, found = (layer_outputs(loaded, state, of) for of in (simulated, lowered))
    assert [] == [name for name in state.layers if not torch.equal(expected[name], found[name])]
    assert 0.0 == network_parity(loaded, simulated, lowered).max_abs


def test_the_reference_is_no_kernel():
    """The lower stage sees that the stand-in of these tests multiplies float64 numbers."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    lowered = backend().lower(loaded, state)
    with pytest.raises(LoweringError, match="multiplies in float"):
        lowering_facts(loaded, state, lowered, simulate(loaded, state), execution="lowered")


def test_layer_without_a_kernel_is_simulated_and_says_why(loaded, images, make_state):
    """Float activations fall back; the entry has the reason and its share of the work."""
    state = make_state()
    name = "conv_in"
    part = dataclasses.replace(state.layers[name].parts[0], activation=None)
    layer = dataclasses.replace(state.layers[name], parts=(part,))
    state = dataclasses.replace(state, layers={**state.layers, name: layer})
    lowered = backend().lower(loaded, state)
    loaded.model.predict(lowered.network, images, torch.full((2,), 500), {})
    (use,) = [use for use in lowered.kernels if use.fallback is not None]
    assert (name, 32, SIMULATED_KERNEL) == (use.layer, use.abits, use.kernel)
    assert "float activations" in use.fallback
    assert use.macs == loaded.topology.layer(name).macs
    assert lowered.executed[SIMULATED_KERNEL] == 1
    assert len(state.layers) == sum(lowered.executed.values())


def test_weights_outside_int8_are_refused_with_their_range(quantized):
    """An asymmetric 8-bit weight minus its zero point may not fit; a 4-bit one always does."""
    for wbits, expected in ((8, "outside int8"), (4, None)):
        layer = quantized("linear", nn.Linear(8, 4), wbits=wbits)
        part = dataclasses.replace(
            layer.parts[0], zero_point=torch.zeros_like(layer.parts[0].zero_point)
        )
        reason = int8_refusal(dataclasses.replace(layer, parts=(part,)))
        assert expected is reason if expected is None else expected in reason


def test_sums_that_may_overflow_are_refused(quantized):
    """65,793 products of the largest numbers fit an int32, one more may not."""
    for width, refused in ((65793, False), (65794, True)):
        layer = quantized("linear", nn.Linear(width, 1))
        assert refused == (int8_refusal(layer) is not None)


@pytest.mark.parametrize(
    ("original", "reason"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "padding mode 'reflect'"),
        (nn.Conv2d(8, 8, 3, padding="same"), "padding 'same' instead of numbers"),
        (nn.Conv2d(8, 8, 3, groups=4), "a convolution in 4 groups"),
        (nn.Linear(8, 8).double(), "a network in torch.float64"),
        (nn.Conv2d(8, 8, 3, padding=1), None),
        (nn.Linear(8, 8).bfloat16(), None),
    ],
)
def test_what_no_kernel_is_for(original, reason):
    """The reason names what was found."""
    assert reason == _original_reason(original)


def test_full_precision_network_stays_as_it_was(loaded, images, make_state):
    """Lowering works on a copy: same modules, same weights, same output."""
    t = torch.full((2,), 500)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    expected = loaded.model.predict(loaded.network, images, t, {})
    loaded.model.predict(backend().lower(loaded, make_state()).network, images, t, {})
    after = loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(expected, loaded.model.predict(loaded.network, images, t, {}))


def test_lowering_needs_a_gpu(loaded, make_state, monkeypatch):
    """Without one there is the message, not a network that fails later."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LoweringError, match="found 'cpu'"):
        CudaBackend().lower(loaded, make_state())
