"""What a quantizer returns is checked against the model before anything is built on it."""

import dataclasses

import pytest
import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.quantize import full_precision, quantize
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.state.sampler_correction import SamplerCorrection
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme


def run(change=lambda state: state):
    """The state of round-to-nearest, changed before it is handed over."""
    loaded = load_tiny()
    method = RoundToNearest(
        scheme=Scheme(wbits=8, abits=8),
        weights="minmax",
        activations="minmax",
        symmetric_weights=True,
        calibration_steps=2,
    )

    class Changed:
        def quantize(self, *args, **kwargs):
            return change(method.quantize(*args, **kwargs))

    needs = method.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=0, batch=2, progress=lambda *_: None)
    return quantize(Changed(), loaded, data, seed=0, progress=lambda *_: None)


def test_state_and_what_it_cost():
    """The facts say how many states were looked at and what that took."""
    state, facts = run()
    expected = {"seconds", "peak_memory_bytes", "network_calls", "calibration_samples"}
    assert expected == set(facts)
    assert 2 * 2 == facts["calibration_samples"]
    assert facts["seconds"] > 0
    assert state.layers


def test_layers_that_the_model_lacks():
    """A state for another network is refused, with a name from it."""

    def add(state):
        layer = next(iter(state.layers.values()))
        return dataclasses.replace(state, layers={**state.layers, "stranger": layer})

    with pytest.raises(QuantizationError, match="stranger"):
        run(add)


def test_other_timesteps():
    """A state for another sampler is refused."""
    with pytest.raises(QuantizationError, match="made for 2 timesteps"):
        run(lambda state: dataclasses.replace(state, timesteps=(1, 2)))


def test_full_precision_is_no_method():
    """The reference is never asked for; whoever asks is told that there is nothing to do."""
    with pytest.raises(QuantizationError, match="nothing to quantize"):
        full_precision(scheme=Scheme())


def test_a_correction_of_other_channels():
    """A correction for another model's predictions is refused."""
    correction = SamplerCorrection(
        slope=torch.zeros(4), bias=torch.zeros(4, 5), variance=torch.zeros(4)
    )
    with pytest.raises(QuantizationError, match="biases of 5 channels, the model predicts 3"):
        run(lambda state: dataclasses.replace(state, correction=correction))
