"""Bias correction: the mean prediction is the full-precision one's, and nothing else changes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tfq_bench.errors import CalibrationError, LoweringError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant.bit_report import bit_report
from tfq_bench.quant.learn.activation_qparams import set_activation_qparams, take
from tfq_bench.quant.learn.bias_correction import correct_output_bias
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.policy import UNIFORM, UNIFORM_IO16, Policy, resolve
from tfq_bench.quant.state.storage import load_state, save_state
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationNeeds, Guidance, Scheme

SCHEME = Scheme(wbits=3, abits=6)
FLOAT_OUTPUT = Policy(name="paper", exempt={"output": "the paper keeps it float"})


def ignore(fraction, text):
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def loaded():
    """The tiny model with four steps."""
    return load_tiny()


@pytest.fixture(scope="module")
def data(loaded):
    """Six images at each step."""
    samples = tuple((step, image) for step in range(4) for image in range(6))
    return capture(loaded, CalibrationNeeds(samples=samples), seed=1, batch=6, progress=ignore)


def nearest(loaded, data, policy=UNIFORM):
    """Nearest rounding with static ranges: everything that correction expects."""
    network = FakeQuantNetwork(loaded, resolve(policy, loaded.topology, SCHEME))
    set_activation_qparams(
        network,
        data,
        network.layers,
        groups=[torch.arange(len(data.x))],
        method="minmax",
        symmetric=False,
        batch=8,
        generator=generator(0, "test"),
        progress=ignore,
    )
    return network


@pytest.fixture
def fake_quant(loaded, data):
    """Nearest rounding with static ranges: everything that correction expects."""
    return nearest(loaded, data)


def _mean_shift(loaded, data, state):
    """Mean of the simulated less the full-precision prediction, float64 `[C]`."""
    model = loaded.model
    network = simulate(loaded, state).network
    found = model.predict(network, data.x, data.timestep, data.condition)
    exact = model.predict(loaded.network, data.x, data.timestep, data.condition)
    return (found - exact).double().mean(dim=(0, 2, 3))


def test_the_mean_prediction_becomes_the_full_precision_one(loaded, data, fake_quant):
    """In the simulated network, on the data of the correction."""
    before = _mean_shift(loaded, data, fake_quant.freeze("test", SCHEME))
    shifts = correct_output_bias(fake_quant, data)
    after = _mean_shift(loaded, data, fake_quant.freeze("test", SCHEME))
    assert torch.allclose(before, shifts["conv_out"].double(), atol=1e-6)
    assert float(before.abs().max()) > 1e-3
    assert float(after.abs().max()) < 1e-6


def test_only_the_output_layers_bias_changes(data, fake_quant):
    """Weights, ranges and all other layers stay."""
    before = fake_quant.freeze("test", SCHEME).layers
    correct_output_bias(fake_quant, data)
    after = fake_quant.freeze("test", SCHEME).layers
    changed = [name for name in before if not torch.equal(before[name].bias, after[name].bias)]
    assert ["conv_out"] == changed
    for name, layer in before.items():
        assert torch.equal(layer.parts[0].weight, after[name].parts[0].weight)


def test_the_model_stays_as_it_is(loaded, data, fake_quant):
    """The bias that moves is the copy's."""
    before = loaded.network.conv_out.bias.detach().clone()
    correct_output_bias(fake_quant, data)
    assert torch.equal(before, loaded.network.conv_out.bias)


def test_a_layer_without_bias_gets_one(fake_quant):
    """Otherwise there would be nothing to correct."""
    layer = fake_quant.layer("conv_out")
    layer._geometry[0].bias = None
    layer.shift_bias(torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(torch.tensor([1.0, 2.0, 3.0]), layer.frozen().bias)


@pytest.mark.parametrize("policy", [UNIFORM_IO16, FLOAT_OUTPUT], ids=["float16", "float32"])
def test_an_exempt_output_layer_takes_the_mean_of_the_others_away(loaded, data, tmp_path, policy):
    """Its bias is in the state, also on disk; the layer stays exempt, and the model as it is."""
    network = nearest(loaded, data, policy)
    plain = network.freeze("test", SCHEME)
    before = _mean_shift(loaded, data, plain)
    own = network.network.conv_out.bias.detach().clone()
    shifts = correct_output_bias(network, data)
    save_state(network.freeze("test", SCHEME), tmp_path)
    state = load_state(tmp_path)
    assert ({}, ["conv_out"]) == (plain.biases, list(state.biases))
    assert torch.equal(own - shifts["conv_out"], state.biases["conv_out"])
    assert torch.allclose(own, loaded.network.conv_out.bias, rtol=2**-11)
    assert plain.exempt == state.exempt
    after = _mean_shift(loaded, data, state)
    assert float(before.abs().max()) > 1e-2
    assert float(after.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("name", "says"), [("conv_out", "has 3 outputs"), ("gone", "has no such layer")]
)
def test_a_bias_that_does_not_fit_the_model_is_refused(loaded, data, name, says):
    """By every backend, before anything is lowered."""
    state = nearest(loaded, data, FLOAT_OUTPUT).freeze("test", SCHEME)
    exempt = {**state.exempt, name: "test"}
    wrong = replace(state, exempt=exempt, biases={name: torch.ones(2)})
    with pytest.raises(LoweringError, match=f"'{name}': the state has 2 values.*{says}"):
        simulate(loaded, wrong)


def test_an_exempt_layer_without_bias_gets_one_that_counts(loaded, data):
    """Four bytes a channel more."""
    bare = replace(loaded, network=copy.deepcopy(loaded.network))
    bare.network.conv_out.bias = None
    network = nearest(bare, data, FLOAT_OUTPUT)
    plain = network.freeze("test", SCHEME)
    shifts = correct_output_bias(network, data)
    state = network.freeze("test", SCHEME)
    assert torch.equal(-shifts["conv_out"], state.biases["conv_out"])
    assert state.packed_bytes - plain.packed_bytes == 4 * 3
    reports = [bit_report(bare.network, bare.topology, one) for one in (plain, state)]
    assert reports[1].total_bytes - reports[0].total_bytes == 4 * 3
    assert float(_mean_shift(bare, data, state).abs().max()) < 1e-6


def test_nothing_happens_without_samples(data, fake_quant):
    """A method that calibrates without data may still call it."""
    assert {} == correct_output_bias(fake_quant, take(data, torch.arange(0)))


class Told(type(load_tiny().model)):
    """The tiny model, whose state is moved by a condition; a guided one."""

    scale = 4.0

    def predict(self, network, x, timestep, condition):
        """The plain prediction of a state that the condition moves, so that errors differ."""
        return super().predict(network, x + condition["shift"][:, :, None, None], timestep, {})

    def conditions(self, images, *, device):
        """Another shift for every image."""
        return {"shift": torch.tensor([[1.5 + 0.1 * image] for image in images], device=device)}

    def guidance(self, *, device):
        """No shift is no condition."""
        return Guidance(scale=self.scale, condition={"shift": torch.zeros(1, 1, device=device)})


def test_under_guidance_the_guided_mean_becomes_the_full_precision_one(loaded):
    """The mean of u + s (c - u), which the sampler steps on, in float64 and branch by branch."""
    guided = replace(loaded, model=Told())
    samples = tuple((step, image) for step in range(4) for image in range(6))
    data = capture(guided, CalibrationNeeds(samples=samples), seed=1, batch=6, progress=ignore)
    network = nearest(guided, data)

    def guided_shift(state) -> torch.Tensor:
        one, two = simulate(guided, state).network, guided.network
        rows = data.x, data.timestep, data.condition
        error = (guided.model.predict(one, *rows) - guided.model.predict(two, *rows)).double()
        without, given = error[0::2], error[1::2]  # the unconditional row comes first
        return (without + Told.scale * (given - without)).mean(dim=(0, 2, 3))

    before = guided_shift(network.freeze("test", SCHEME))
    shifts = correct_output_bias(network, data)
    after = guided_shift(network.freeze("test", SCHEME))
    # One value at the border of two codes may round either way: 1e-5 of the mean.
    assert torch.allclose(before, shifts["conv_out"].double(), atol=1e-4)
    assert float(before.abs().max()) > 0.1
    assert float(after.abs().max()) < 1e-4
    with pytest.raises(CalibrationError, match="each of two branches"):
        correct_output_bias(network, take(data, torch.arange(3)))
