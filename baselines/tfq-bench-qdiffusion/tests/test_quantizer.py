"""The quantizer on the tiny model: contracts, split shortcuts, and that learning helps."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import CalibrationError, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import simulate
from tfq_bench.seeds import generator, noise
from tfq_bench.testing.contracts import QuantizerContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types.networks import timestep_tensor
from tfq_bench_qdiffusion.quantizer import QDiffusion

W4A8 = Scheme(wbits=4, abits=8)


def ignore(fraction, text):
    """Progress that nobody looks at."""


class TestContract(QuantizerContract):
    schemes = (
        Scheme(wbits=8, abits=8),
        Scheme(wbits=4, abits=8, policy="paper"),
        Scheme(wbits=4, abits=8, policy="uniform-temporal16"),
        Scheme(wbits=4, abits=8, policy="uniform-io16"),
        Scheme(wbits=4, abits=32),
    )

    def make(self, scheme):
        return QDiffusion(
            scheme=scheme, preset="quick", iterations=4, activation_iterations=2, batch=4
        )


class TestSdContract(QuantizerContract):
    schemes = (W4A8,)

    def make(self, scheme):
        return QDiffusion(
            scheme=scheme,
            preset="quick",
            variant="sd",
            iterations=4,
            activation_iterations=2,
            batch=4,
        )


def _state(loaded, scheme=W4A8, **options):
    quantizer = QDiffusion(scheme=scheme, **{"preset": "quick", **options})
    needs = quantizer.calibration_needs(loaded, images=8)
    data = capture(loaded, needs, seed=1, batch=8, progress=ignore)
    return quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)


@torch.no_grad()
def _error(loaded, state):
    """Mean squared error of the prediction over fresh noise at every step."""
    lowered = simulate(loaded, state)
    x = noise(7, "test", range(16), loaded.model.latent_shape, device="cpu")
    total = 0.0
    for step, timestep in enumerate(loaded.sampler.timesteps):
        lowered.step.set(step)
        t = timestep_tensor(timestep, 16, "cpu")
        expected = loaded.model.predict(loaded.network, x, t, {})
        found = loaded.model.predict(lowered.network, x, t, {})
        total += float((expected - found).square().mean())
    return total / len(loaded.sampler.timesteps)


def test_learned_rounding_beats_nearest():
    """At three bits the reconstructed network is closer to full precision on unseen noise."""
    loaded = load_tiny()
    scheme = Scheme(wbits=3, abits=32)
    nearest = _error(loaded, _state(loaded, scheme, iterations=0))
    learned = _error(loaded, _state(loaded, scheme, iterations=300, lr=1e-2))
    assert learned < 0.8 * nearest


@pytest.mark.parametrize(("split", "parts"), [(True, 2), (False, 1)])
def test_only_the_shortcut_is_split(split, parts):
    """Its halves have parameters of their own; the 3x3 convolution's have not."""
    state = _state(load_tiny(), split=split, iterations=0, activation_iterations=0)
    assert parts == len(state.layers["second.shortcut"].parts)
    assert 1 == len(state.layers["second.conv1"].parts)


def test_steps_of_activations_are_learned():
    """With the weights left alone, only scales move, and they stay near their start."""
    loaded = load_tiny()
    start = _state(loaded, iterations=0, activation_iterations=0)
    learned = _state(loaded, iterations=0, activation_iterations=50, activation_lr=1e-2)
    ratios = [
        float(learned.layers[name].parts[0].activation.scale / layer.parts[0].activation.scale)
        for name, layer in start.layers.items()
    ]
    assert any(abs(ratio - 1) > 1e-3 for ratio in ratios)
    assert all(0.3 < ratio < 3.0 for ratio in ratios)
    for name, layer in start.layers.items():
        assert torch.equal(layer.parts[0].weight, learned.layers[name].parts[0].weight), name


def test_symmetric_weights_have_their_zero_point_in_the_middle():
    """At four bits, where they are free otherwise."""
    loaded = load_tiny()
    free, middle = (
        {
            int(zero)
            for layer in _state(loaded, iterations=0, symmetric_weights=on).layers.values()
            for part in layer.parts
            for zero in part.zero_point
            if layer.wbits == 4
        }
        for on in (False, True)
    )
    assert {8} == middle
    assert {8} < free


def test_bias_correction_also_acts_on_an_exempt_output_layer():
    """Its bias is then in the state."""
    scheme = Scheme(wbits=4, abits=8, policy="uniform-io16")
    state = _state(load_tiny(), scheme, preset="quick", bias_correction=True)
    assert ["conv_out"] == list(state.biases)


def test_bias_correction_moves_the_output_bias_alone():
    """Off unless asked for; it comes after all that is learned."""
    loaded = load_tiny()
    plain, corrected = (
        _state(loaded, preset="quick", bias_correction=on).layers for on in (False, True)
    )
    moved = [name for name in plain if not torch.equal(plain[name].bias, corrected[name].bias)]
    assert ["conv_out"] == moved


def test_paper_policy_exempts_nothing_and_raises_nothing():
    """Input, output, time and shortcut layers all have the asked four bits."""
    state = _state(load_tiny(), Scheme(wbits=4, abits=8, policy="paper"), iterations=0)
    assert {4} == {layer.wbits for layer in state.layers.values()}
    assert not state.exempt


def test_variants_decide_the_zero_points():
    """`cifar` has symmetric activations, `sd` free ones."""
    loaded = load_tiny()
    zeros = {
        variant: {
            int(part.activation.zero_point)
            for layer in _state(loaded, variant=variant, iterations=0).layers.values()
            for part in layer.parts
        }
        for variant in ("cifar", "sd")
    }
    assert {128} == zeros["cifar"]
    assert len(zeros["sd"]) > 1


def test_no_calibration_data_is_refused():
    """Reconstruction needs inputs; the message says what to ask for."""
    loaded = load_tiny()
    quantizer = QDiffusion(scheme=W4A8, preset="quick")
    data = capture(
        loaded, quantizer.calibration_needs(loaded, images=0), seed=1, batch=8, progress=ignore
    )
    with pytest.raises(CalibrationError, match="calibration"):
        quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
