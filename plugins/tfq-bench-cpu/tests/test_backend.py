"""Whole networks: what runs as a kernel, what does not, and how far it is from the simulation."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from tfq_bench.api import LoweringError
from tfq_bench.quant.lower.lowering import int8_refusal
from tfq_bench.quant.lower.simulate import SIMULATED_KERNEL, simulate
from tfq_bench.quant.state.storage import save_state
from tfq_bench_cpu import kernels, layers, machine
from tfq_bench_cpu.backend import CpuBackend
from tfq_bench_cpu.layers import CONV2D, LINEAR

TOLERANCE = 1e-6
"""Relative L2 distance to the simulation. Both form the same integers and scale them in the same
order, so what was measured is 0. The room is for an instruction set whose last bit differs, not for
a code that moved: one alone is seen as more than this (see the test)."""


def predict(loaded, network, images):
    """The network's output at one timestep."""
    return loaded.model.predict(network, images, torch.full((2,), 500), {})


def test_tolerance_sees_one_code(loaded, images, make_state):
    """One weight code that is off by one in one layer of the network breaks the tolerance."""
    state = make_state()
    name = "mid_block.resnets.0.conv1"
    part = state.layers[name].parts[0]
    weight = part.weight.clone()
    weight[0, 0, 1, 1] += 1 if weight[0, 0, 1, 1] < 255 else -1
    layer = dataclasses.replace(
        state.layers[name], parts=(dataclasses.replace(part, weight=weight),)
    )
    other = dataclasses.replace(state, layers={**state.layers, name: layer})
    expected = predict(loaded, simulate(loaded, state).network, images)
    found = predict(loaded, CpuBackend().lower(loaded, other).network, images)
    assert (found - expected).norm() > TOLERANCE * expected.norm()


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (6, 6)])
def test_network_agrees_with_the_simulation(loaded, images, make_state, wbits, abits):
    """At every step within the stated tolerance of the same integers in float arithmetic."""
    state = make_state(wbits=wbits, abits=abits)
    lowered, simulated = CpuBackend().lower(loaded, state), simulate(loaded, state)
    outputs = []
    for index in range(3):
        lowered.step.set(index)
        simulated.step.set(index)
        expected = predict(loaded, simulated.network, images)
        found = predict(loaded, lowered.network, images)
        assert (found - expected).norm() <= TOLERANCE * expected.norm()
        outputs.append(found)
    assert not torch.equal(outputs[0], outputs[2])


def test_every_layer_runs_its_kernel_at_every_call(loaded, images, make_state):
    """The layers' own count is calls times layers, so a silent fallback would show."""
    lowered = CpuBackend().lower(loaded, make_state())
    for _ in range(2):
        predict(loaded, lowered.network, images)
    convolutions = sum(layer.kind == "conv2d" for layer in loaded.topology.layers)
    linears = len(loaded.topology.layers) - convolutions
    counts = {CONV2D: 0, LINEAR: 0}
    for kernel, count in lowered.executed.items():
        counts[kernel.partition(",")[0]] += count
    assert {CONV2D: 2 * convolutions, LINEAR: 2 * linears} == counts
    assert [None] * (convolutions + linears) == [use.fallback for use in lowered.kernels]
    assert lowered.execution == "lowered"
    left = [m for m in lowered.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert left == []


def test_layer_without_a_kernel_is_simulated_and_says_why(loaded, images, make_state):
    """Float activations fall back; the entry has the reason and the count leaves it out."""
    state = make_state()
    name = "conv_in"
    part = dataclasses.replace(state.layers[name].parts[0], activation=None)
    layer = dataclasses.replace(state.layers[name], parts=(part,))
    state = dataclasses.replace(state, layers={**state.layers, name: layer})
    lowered = CpuBackend().lower(loaded, state)
    predict(loaded, lowered.network, images)
    (use,) = [use for use in lowered.kernels if use.fallback is not None]
    assert (name, 32) == (use.layer, use.abits)
    assert "float activations" in use.fallback
    assert use.kernel == SIMULATED_KERNEL
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


def test_padding_that_is_not_zeros_falls_back(quantized):
    """OneDNN pads with real zero; reflecting convolutions are left to the simulation."""
    from tfq_bench_cpu.backend import _geometry_reason

    conv = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    assert _geometry_reason(quantized("conv", conv), conv) == "padding mode 'reflect'"


def test_full_precision_network_stays_as_it_was(loaded, images, make_state):
    """Lowering works on a copy: same modules, same weights, same output."""
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    expected = predict(loaded, loaded.network, images)
    lowered = CpuBackend().lower(loaded, make_state())
    predict(loaded, lowered.network, images)
    after = loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(expected, predict(loaded, loaded.network, images))


def test_lowering_needs_exact_kernels(loaded, make_state, monkeypatch):
    """A machine whose kernels lose sums gets the message, not wrong sums."""
    monkeypatch.setattr(machine, "largest_sum", lambda weight: 0.0)
    with pytest.raises(LoweringError, match="not exact here"):
        CpuBackend().lower(loaded, make_state())


@pytest.mark.parametrize(("wbits", "expected"), [(8, True), (6, False), (4, False)])
def test_only_eight_bit_weights_are_multiplied_twice(
    loaded, images, make_state, monkeypatch, wbits, expected
):
    """Where pairs of products saturate, the record says which layers cost more products."""
    monkeypatch.setattr(kernels, "saturates", lambda: True)
    state = make_state(wbits=wbits)
    lowered = CpuBackend().lower(loaded, state)
    found = predict(loaded, lowered.network, images)
    assert expected == any("," in use.kernel for use in lowered.kernels)
    assert torch.equal(predict(loaded, simulate(loaded, state).network, images), found)


def test_layer_whose_sums_are_not_exact_is_simulated(loaded, images, make_state, monkeypatch):
    """What fails its self-test never runs: the layer is listed with the reason."""
    monkeypatch.setattr(layers, "prove_conv2d", lambda *_: None)
    state = make_state()
    lowered = CpuBackend().lower(loaded, state)
    found = predict(loaded, lowered.network, images)
    for use in lowered.kernels:
        if loaded.topology.layer(use.layer).kind == "conv2d":
            assert SIMULATED_KERNEL == use.kernel
            assert "in no form are the int8 sums" in use.fallback
        else:
            assert use.fallback is None
    assert torch.equal(predict(loaded, simulate(loaded, state).network, images), found)


def test_details_count_every_product(loaded, make_state):
    """How layers multiply is told for each part of each: one layer of the state is split."""
    lowered = CpuBackend().lower(loaded, make_state())
    (counts,) = lowered.details.values()
    assert len(lowered.kernels) + 1 == sum(counts.values())


def test_four_bit_weights_are_packed_on_disk(make_state, tmp_path):
    """A W4 state takes less than 0.6 of the bytes of a W8 state."""
    sizes = {}
    for wbits in (4, 8):
        folder = tmp_path / str(wbits)
        folder.mkdir()
        save_state(make_state(wbits=wbits), folder)
        sizes[wbits] = (folder / "tensors-0001.safetensors").stat().st_size
    assert sizes[4] < 0.6 * sizes[8]
