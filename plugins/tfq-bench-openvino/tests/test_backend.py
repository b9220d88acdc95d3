"""Whole networks: what runs on bytes, what does not, and how far it is from the simulation."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from tfq_bench.api import LoweringError
from tfq_bench.quant import SIMULATED_KERNEL, simulate, watched_layers
from tfq_bench_openvino import backend, executed
from tfq_bench_openvino.backend import OpenVinoBackend
from tfq_bench_openvino.layers import CONV2D, HALVES, LINEAR
from tfq_bench_openvino.network import FLOAT

TOLERANCE = 0.02
"""Relative L2 distance to the simulation. Norms and attention round otherwise than torch's, which
moves a few codes by one; what is off by more is seen by the checks of layers."""


def predict(loaded, network, images, step=500):
    """The network's output at one timestep."""
    return loaded.model.predict(network, images, torch.full((len(images),), step), {})


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (6, 6)])
def test_network_agrees_with_the_simulation(loaded, images, make_state, wbits, abits):
    """At every step, one compiled model reads its own scales; layer by layer they are exact."""
    state = make_state(wbits=wbits, abits=abits)
    lowered, simulated = OpenVinoBackend().lower(loaded, state), simulate(loaded, state)
    outputs = []
    for index in range(3):
        lowered.step.set(index)
        simulated.step.set(index)
        expected = predict(loaded, simulated.network, images)
        found = predict(loaded, lowered.network, images)
        assert (found - expected).norm() <= TOLERANCE * expected.norm()
        with watched_layers(loaded, state, lowered) as watch:
            watched = predict(loaded, lowered.network, images)
        assert torch.equal(found, watched)
        assert len(watch.checks) == len(state.layers)
        outputs.append(found)
    assert not torch.equal(outputs[0], outputs[2])


def test_every_layer_runs_on_bytes_at_every_call(loaded, images, make_state):
    """What is counted is what the executed graph says, so a silent fallback would show."""
    lowered = OpenVinoBackend().lower(loaded, make_state(wbits=4))
    for _ in range(2):
        predict(loaded, lowered.network, images)
    convolutions = sum(layer.kind == "conv2d" for layer in loaded.topology.layers)
    linears = len(loaded.topology.layers) - convolutions
    counts = {CONV2D: 0, LINEAR: 0}
    for kernel, count in lowered.executed.items():
        counts[kernel.removesuffix(HALVES)] += count
    assert {CONV2D: 2 * convolutions, LINEAR: 2 * linears} == counts
    assert [None] * (convolutions + linears) == [use.fallback for use in lowered.kernels]
    assert lowered.execution == "lowered"


def test_details_tell_what_the_engine_ran(loaded, make_state):
    """Plain JSON with a primitive for each part of each layer, all of them int8."""
    state = make_state(wbits=4)
    details = json.loads(json.dumps(dict(OpenVinoBackend().lower(loaded, state).details)))
    assert details["layers"].keys() == state.layers.keys()
    for name, primitives in details["layers"].items():
        assert len(state.layers[name].parts) == len(primitives)
    assert sum(details["products"].values()) == len(state.layers) + 1
    assert all("I8" in name.upper() for name in details["products"])
    assert details["openvino"]


def test_any_batch_gives_each_image_its_own(loaded, images, make_state):
    """The model is traced for two images; the rows of five are those of one."""
    lowered = OpenVinoBackend().lower(loaded, make_state(wbits=4))
    five = torch.cat([images, images, images[:1]])
    found = predict(loaded, lowered.network, five)
    one = predict(loaded, lowered.network, images[1:])
    torch.testing.assert_close(found[1:2], one, rtol=0.05, atol=0.05)
    torch.testing.assert_close(found[0], found[4], rtol=0.05, atol=0.05)


def test_layer_that_cannot_run_on_bytes_is_simulated_and_says_why(loaded, images, make_state):
    """Float activations fall back, inside of the model too; the count leaves the layer out."""
    state = make_state(wbits=4)
    name = "conv_in"
    part = dataclasses.replace(state.layers[name].parts[0], activation=None)
    layer = dataclasses.replace(state.layers[name], parts=(part,))
    state = dataclasses.replace(state, layers={**state.layers, name: layer})
    lowered = OpenVinoBackend().lower(loaded, state)
    found = predict(loaded, lowered.network, images)
    expected = predict(loaded, simulate(loaded, state).network, images)
    assert (found - expected).norm() <= TOLERANCE * expected.norm()
    (use,) = [use for use in lowered.kernels if use.fallback is not None]
    assert (name, 32) == (use.layer, use.abits)
    assert "float activations" in use.fallback
    assert use.kernel == SIMULATED_KERNEL
    assert lowered.executed[SIMULATED_KERNEL] == 1
    assert len(state.layers) == sum(lowered.executed.values())


def test_layer_for_which_the_engine_took_floats_is_a_fallback(
    loaded, images, make_state, monkeypatch
):
    """Bytes that became floats are not counted as bytes, and the primitive is the reason."""
    monkeypatch.setattr(executed, "_BYTES", ())
    lowered = OpenVinoBackend().lower(loaded, make_state(wbits=4))
    predict(loaded, lowered.network, images)
    assert {FLOAT: len(lowered.kernels)} == lowered.executed
    assert all(use.fallback.startswith("OpenVINO runs it as ") for use in lowered.kernels)


def test_geometries_without_int8_say_why():
    """What the layers' operations do not cover is left to the simulation."""
    for conv, reason in (
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "padding mode 'reflect'"),
        (nn.Conv2d(8, 8, 3, padding="same"), "padding 'same' instead of numbers"),
        (nn.Conv2d(8, 8, 3, groups=2), "a grouped convolution"),
        (nn.Conv2d(8, 8, 3), None),
        (nn.Linear(8, 8), None),
    ):
        assert reason == backend._geometry_reason(conv)


def test_network_in_16_bits_is_refused(loaded, make_state):
    """The model computes in float32, so that it can be held against the simulation."""
    half = dataclasses.replace(loaded, network=copy.deepcopy(loaded.network).bfloat16())
    with pytest.raises(LoweringError, match="float32, found bfloat16"):
        OpenVinoBackend().lower(half, make_state())


def test_network_that_cannot_be_translated_says_why(loaded, make_state):
    """The message has the reason of OpenVINO and no traceback of it."""

    class Opaque(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x).real

    network = copy.deepcopy(loaded.network)
    network.conv_norm_out = Opaque()
    changed = dataclasses.replace(loaded, network=network)
    with pytest.raises(LoweringError, match="OpenVINO cannot translate the network"):
        OpenVinoBackend().lower(changed, make_state())


def test_full_precision_network_stays_as_it_was(loaded, images, make_state):
    """Lowering works on a copy: same modules, same weights, same output."""
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    expected = predict(loaded, loaded.network, images)
    predict(loaded, OpenVinoBackend().lower(loaded, make_state()).network, images)
    after = loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(expected, predict(loaded, loaded.network, images))


def test_weights_in_halves_are_those_that_saturate(loaded, images, make_state, monkeypatch):
    """Where pairs of products saturate, the record says which layers cost twice the products."""
    for answer in (False, True):
        monkeypatch.setattr(backend, "saturates", lambda answer=answer: answer)
        lowered = OpenVinoBackend().lower(loaded, make_state(wbits=8))
        assert [answer] == list({use.kernel.endswith(HALVES) for use in lowered.kernels})
    monkeypatch.setattr(backend, "saturates", lambda: True)
    lowered = OpenVinoBackend().lower(loaded, make_state(wbits=6))
    assert not any(use.kernel.endswith(HALVES) for use in lowered.kernels)
