"""Divergence of sampling from full precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tfq_bench.errors import MetricError
from tfq_bench.metrics.trajectory import Trajectory, diverge
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.quantize import quantize
from tfq_bench.pipeline.sample import draw
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.stats.intervals import bootstrap_indices
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme
from tfq_bench.types.networks import Lowered, StepCursor


def _scaled(tiny, factor: float) -> Lowered:
    """A network that predicts `factor` times what the model predicts."""
    network = copy.deepcopy(tiny.network)
    with torch.no_grad():
        network.conv_out.weight.mul_(factor)
        network.conv_out.bias.mul_(factor)
    return Lowered(network=network, step=StepCursor("cpu"), execution="simulated")


class _Off(nn.Module):
    """Predicts what the model predicts, and an error beside it, `[B or 1, 3, 8 or 1, 8 or 1]`."""

    def __init__(self, network: nn.Module, error: torch.Tensor) -> None:
        super().__init__()
        self.network, self.error = network, error

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.network(x, timestep) + self.error


def _off(tiny, error) -> Lowered:
    network = _Off(copy.deepcopy(tiny.network), torch.tensor(error))
    return Lowered(network=network, step=StepCursor("cpu"), execution="simulated")


def _rounded(loaded, wbits: int) -> Lowered:
    method = RoundToNearest(
        scheme=Scheme(wbits=wbits, abits=8),
        weights="minmax",
        activations="minmax",
        symmetric_weights=True,
        calibration_steps=2,
    )
    data = capture(
        loaded,
        method.calibration_needs(loaded, images=4),
        seed=0,
        batch=4,
        progress=lambda *_: None,
    )
    state, _ = quantize(method, loaded, data, seed=0, progress=lambda *_: None)
    return simulate(loaded, state)


def test_prediction_error_is_that_of_the_network_at_full_precision_states(tiny):
    """A network off by a tenth is off by a tenth at every step, however far its states drift."""
    found = diverge(tiny, _scaled(tiny, 1.1), images=3, seed=0)
    assert (4, 3) == found.prediction.shape == found.state.shape
    assert pytest.approx(0.1, rel=1e-4) == float(found.prediction.min())
    assert pytest.approx(0.1, rel=1e-4) == float(found.prediction.max())
    assert (found.state > 0).all()


def test_the_same_network_does_not_diverge(tiny):
    """Equal networks stay together to the last bit."""
    found = diverge(tiny, _scaled(tiny, 1.0), images=2, seed=0)
    assert 0.0 == found.state.max() == found.prediction.max()


@pytest.mark.parametrize("sampler", ["ddim", "ddim-stochastic"])
def test_last_states_are_those_of_the_cells_own_images(sampler):
    """Decoded, the compared trajectories are the images that sampling draws."""
    loaded = load_tiny(steps=4, sampler=sampler)
    lowered = _scaled(loaded, 1.1)
    ends = []
    original = loaded.sampler.step

    def recorded(x, prediction, index, z):
        ends.append(original(x, prediction, index, z))
        return ends[-1]

    loaded.sampler.step = recorded
    diverge(loaded, lowered, images=2, seed=5)
    full, mine = ends[-2:]
    loaded.sampler.step = original
    drawn = draw(loaded, lowered, range(2), seed=5, batch=2, progress=lambda *_: None)
    assert torch.equal(drawn, loaded.model.decode(mine))
    assert not torch.equal(full, mine)


def test_fewer_bits_diverge_more(tiny):
    """W4 departs further than W8: in the state, in the prediction, and in its mean."""
    coarse, fine = (diverge(tiny, _rounded(tiny, b), images=4, seed=0) for b in (4, 8))
    assert fine.state[-1].mean() < coarse.state[-1].mean()
    assert fine.prediction.mean() < coarse.prediction.mean()
    shifts = [np.abs(found.shift.mean(axis=1)).max() for found in (fine, coarse)]
    assert 0 < shifts[0] < shifts[1] / 2


def test_value_is_the_last_step_with_an_interval_over_images(make_inputs, tiny):
    """The curves are means over images; the definition names sampler, noise and images."""
    inputs = make_inputs(reference_cell="fp-cell", network=_rounded(tiny, 4))
    value, _ = Trajectory(images=4).evaluate(inputs)
    found = diverge(tiny, _rounded(tiny, 4), images=4, seed=0)
    assert pytest.approx(found.state[-1].mean()) == value.value
    assert value.interval.low < value.value < value.interval.high
    assert (4, "fp-cell") == (value.n, value.reference)
    assert pytest.approx(found.state.mean(axis=1)) == value.series["trajectory_divergence"]
    assert pytest.approx(found.prediction.mean(axis=1)) == value.series["prediction_divergence"]
    assert tuple(map(float, tiny.sampler.timesteps)) == value.series["timestep"]
    assert {"formula": 1, "sampler": {"steps": 4}, "seed": 0, "images": 4} == dict(
        value.definition.parameters
    )


def test_states_that_are_not_finite_are_an_error(tiny):
    """A network that explodes is told, not averaged."""
    with pytest.raises(MetricError, match="finite"):
        diverge(tiny, _scaled(tiny, float("nan")), images=2, seed=0)


def test_full_precision_has_no_divergence(make_inputs):
    """The reference is not compared with itself."""
    assert Trajectory(images=2).evaluate(make_inputs()) == ()


def _predictions(tiny, images: int) -> np.ndarray:
    """float64 `[T, N, 3, 8, 8]`: what full precision predicts on its own way."""
    batch = SampledBatch(tiny, range(images), seed=0, purpose="sampling")
    found = []
    for _ in tiny.sampler.timesteps:
        found.append(batch.predict(tiny.network, batch.network_input()))
        batch.advance(found[-1])
    return torch.stack(found).double().detach().numpy()


def test_a_shift_of_the_output_is_told_by_channel_and_step(make_inputs, tiny):
    """A prediction that is off by three constants: these over the step's standard deviation."""
    shift = np.array([0.02, -0.01, 0.0])
    inputs = make_inputs(
        reference_cell="fp-cell", network=_off(tiny, shift.astype("f4")[:, None, None])
    )
    divergence, value = Trajectory(images=4).evaluate(inputs)
    expected = shift / _predictions(tiny, 4).std(axis=(1, 2, 3, 4))[:, None]
    for channel in range(3):
        assert expected[:, channel] == pytest.approx(
            value.series[f"channel:{channel}"], rel=1e-4, abs=1e-7
        )
    assert np.sqrt((expected**2).mean(axis=1)) == pytest.approx(
        value.series["output_shift"], rel=1e-4
    )
    assert np.sqrt((expected**2).mean()) == pytest.approx(value.value, rel=1e-4)
    assert divergence.series["timestep"] == value.series["timestep"]
    assert ("output-shift", 4, "fp-cell") == (value.definition.name, value.n, value.reference)
    assert dict(divergence.definition.parameters) == dict(value.definition.parameters)


def test_errors_that_cancel_are_no_shift(make_inputs, tiny):
    """A chequered error, or one of another sign in every other image, has no mean.

    What differs between images is in the interval, what differs between positions is not.
    """
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 2 - 1).astype("f4") * 0.1
    signs = np.array([1, -1, 1, -1], "f4")[:, None, None, None] * 0.1
    widths = []
    for error in (board, signs):
        inputs = make_inputs(reference_cell="fp-cell", network=_off(tiny, error))
        divergence, value = Trajectory(images=4).evaluate(inputs)
        assert min(divergence.series["prediction_divergence"]) > 0.01
        assert value.value < 1e-6
        widths.append(value.interval.high - value.interval.low)
    assert widths[0] < 1e-6
    assert widths[1] > 0.01


def test_interval_of_the_shift_is_of_images_drawn_again(make_inputs, tiny):
    """Each replicate is the value of that resample, in the units of the whole sample."""
    error = np.array([0.01, 0.02, 0.04, 0.02], "f4")[:, None, None, None]
    inputs = make_inputs(reference_cell="fp-cell", network=_off(tiny, error))
    _, value = Trajectory(images=4).evaluate(inputs)
    units = _predictions(tiny, 4).std(axis=(1, 2, 3, 4))
    means = error.ravel()[bootstrap_indices(4, 200)].mean(axis=1)
    expected = means * np.sqrt((1 / units**2).mean())
    assert expected == pytest.approx(value.replicates, rel=1e-4)


def test_a_constant_prediction_has_no_shift_in_its_own_units(make_inputs, tiny):
    """An output layer without weights has no standard deviation; the divergence stays."""
    with torch.no_grad():
        tiny.network.conv_out.weight.zero_()
        tiny.network.conv_out.bias.fill_(0.25)
    inputs = make_inputs(reference_cell="fp-cell", network=_off(tiny, 0.5))
    names = [value.definition.name for value in Trajectory(images=2).evaluate(inputs)]
    assert ["trajectory-divergence"] == names
