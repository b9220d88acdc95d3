"""On the tiny model: the contract, a base that is left alone, and a known error taken out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tfq_bench.api import (
    CalibrationError,
    CalibrationNeeds,
    Guidance,
    Lowered,
    Scheme,
    StepCursor,
)
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import RoundToNearest, save_state
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.seeds import generator
from tfq_bench.testing.contracts import QuantizerContract
from tfq_bench.testing.tiny import TinyModel, load_tiny
from tfq_bench_ptqd import quantizer
from tfq_bench_ptqd.quantizer import Ptqd

W4A8 = Scheme(wbits=4, abits=8)
STEPS, IMAGES = 4, 24
SLOPE = torch.tensor([0.2, -0.3, 0.1, 0.0])
BIAS = torch.arange(3.0 * STEPS).reshape(STEPS, 3) / 10
SIGMA = 0.05


class TestContract(QuantizerContract):
    schemes = (
        Scheme(wbits=8, abits=8),
        Scheme(wbits=4, abits=8, policy="uniform-io16"),
        Scheme(wbits=4, abits=32),
    )

    def make(self, scheme):
        return Ptqd(scheme=scheme, base=RoundToNearest(scheme=scheme), correction_images=2)


class Conditional(TinyModel):
    """The tiny model under guidance 3, its prediction shifted by 1 where there is a condition."""

    def predict(self, network, x, timestep, condition):
        return super().predict(network, x, timestep, {}) + condition["shift"][:, :, None, None]

    def conditions(self, images, *, device):
        return {"shift": torch.ones(len(images), 1, device=device)}

    def guidance(self, *, device):
        return Guidance(scale=3.0, condition={"shift": torch.zeros(1, 1, device=device)})


class Disturbed(nn.Module):
    """A network whose prediction is (1 + k_t) e + b_tc + noise, without one repeated draw."""

    def __init__(self, network, step):
        super().__init__()
        self.network, self.step = network, step
        self.marker = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x, timestep):
        e = self.network(x, timestep)
        t = int(self.step.index)
        noise = SIGMA * torch.randn(e.shape, generator=self.generator)
        return (1 + SLOPE[t]) * e + BIAS[t][:, None, None] + noise


def disturbed(loaded):
    """It as a lowered network."""
    step = StepCursor("cpu")
    network = Disturbed(loaded.network, step)
    return Lowered(network=network, step=step, execution="simulated")


def ignore(fraction, text):
    """Progress that nobody looks at."""


def made(loaded, method, *, images=IMAGES):
    """The state of a method, from data as a run captures them."""
    needs = method.calibration_needs(loaded, images=images)
    data = capture(loaded, needs, seed=1, batch=32, progress=ignore)
    return method.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)


def with_known_error(loaded, monkeypatch, **options):
    """The correction that is fitted when the quantized network is `Disturbed`."""
    monkeypatch.setattr(quantizer, "simulate", lambda loaded, _: disturbed(loaded))
    options = {"negative_slopes": True, **options}
    method = Ptqd(scheme=W4A8, base=RoundToNearest(scheme=W4A8), **options)
    return made(loaded, method).correction


def test_a_known_error_is_recovered(monkeypatch):
    """Slope and variance of each step, bias of each step and channel."""
    found = with_known_error(load_tiny(steps=STEPS), monkeypatch)
    torch.testing.assert_close(SLOPE, found.slope, atol=0.01, rtol=0)
    torch.testing.assert_close(BIAS, found.bias, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.full((STEPS,), SIGMA**2), found.variance, atol=0, rtol=0.1)


@torch.no_grad()
def test_the_corrected_prediction_is_full_precisions_in_mean(monkeypatch):
    """On images that were not fitted on, what is left is noise of the variance that is stated."""
    loaded = load_tiny(steps=STEPS)
    correction = with_known_error(loaded, monkeypatch)
    lowered = disturbed(loaded)
    batch = SampledBatch(loaded, range(64), seed=9, purpose="sampling")
    for step in range(STEPS):
        lowered.step.set(step)
        x = batch.network_input()
        exact = batch.predict(loaded.network, x)
        left = batch.predict(lowered.network, x, correction) - exact
        torch.testing.assert_close(torch.zeros(3), left.mean(dim=(0, 2, 3)), atol=0.02, rtol=0)
        assert correction.remaining_variance(step) == pytest.approx(float(left.var()), rel=0.1)
        batch.advance(exact)


def test_guidance_is_fitted_on_what_the_sampler_steps_on(monkeypatch):
    """The error of u + 3 (c - u), whose noise is -2 times that of u and 3 times that of c."""
    loaded = replace(load_tiny(steps=STEPS), model=Conditional())
    found = with_known_error(loaded, monkeypatch)
    variance = torch.full((STEPS,), (4 + 9) * SIGMA**2)
    torch.testing.assert_close(variance, found.variance, atol=0, rtol=0.1)
    torch.testing.assert_close(SLOPE, found.slope, atol=0.02, rtol=0)
    # The condition adds 3 to both predictions, of which the slope expects more of the one.
    torch.testing.assert_close(BIAS - 3 * SLOPE[:, None], found.bias, atol=0.06, rtol=0)


class Recording(RoundToNearest):
    """Rounds, and keeps what it was given: step 1 of the first five images, or of every other."""

    every = 1

    def calibration_needs(self, loaded, *, images):
        chosen = range(min(5, images)) if self.every == 1 else range(0, images // 2, self.every)
        return CalibrationNeeds(samples=tuple((1, image) for image in chosen))

    def quantize(self, loaded, data, **rest):
        self.seen = data
        return super().quantize(loaded, data, **rest)


@pytest.mark.parametrize("model", [TinyModel, Conditional])
def test_the_base_gets_what_it_would_get_alone(tmp_path, model):
    """Its data and no more, so that its state is the same bytes but for method and correction."""
    loaded = replace(load_tiny(steps=STEPS), model=model())
    alone, inner = Recording(scheme=W4A8), Recording(scheme=W4A8)
    plain = made(loaded, alone)
    state = made(loaded, Ptqd(scheme=W4A8, base=inner, correction_images=3))
    for name in ("x", "timestep", "step", "image"):
        assert torch.equal(getattr(alone.seen, name), getattr(inner.seen, name)), name
    assert "ptqd+rtn" == state.method
    for folder, one in (("plain", plain), ("inner", state)):
        save_state(replace(one, method="", correction=None), tmp_path / folder)
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("plain", "inner")]
    assert manifests[0] == manifests[1]


def test_no_image_is_asked_for_that_the_base_does_not_see():
    """The last of its images at every step; of all images where the base needs none."""
    loaded = load_tiny(steps=STEPS)
    method = Ptqd(scheme=W4A8, base=Recording(scheme=W4A8), correction_images=2)
    needs = method.calibration_needs(loaded, images=8).samples
    ours = {(step, image) for step in range(STEPS) for image in (3, 4)}
    assert {(1, image) for image in range(5)} | ours == set(needs)
    weights = Scheme(wbits=4, abits=32)
    method = Ptqd(scheme=weights, base=RoundToNearest(scheme=weights), correction_images=2)
    needs = method.calibration_needs(loaded, images=8).samples
    assert {(step, image) for step in range(STEPS) for image in (6, 7)} == set(needs)


def test_data_that_cannot_be_told_apart_are_refused():
    """None at all, or of a base that asks for other images the more there are."""
    loaded = load_tiny(steps=STEPS)
    method = Ptqd(scheme=W4A8, base=Recording(scheme=W4A8))
    with pytest.raises(CalibrationError, match="found none"):
        made(loaded, method, images=0)
    method.base.every = 2
    with pytest.raises(CalibrationError, match="out of the first 11"):
        made(loaded, method, images=24)


def test_parts_can_be_left_out(monkeypatch):
    """Each of the paper's three alone, and the released code's rule for slopes."""
    loaded = load_tiny(steps=STEPS)
    options = {"correct_slope": False, "absorb_variance": False}
    found = with_known_error(loaded, monkeypatch, **options)
    assert 0.0 == float(found.slope.abs().max()) == float(found.variance.max())
    assert float(found.bias.abs().max()) > 0.5
    found = with_known_error(loaded, monkeypatch, correct_bias=False, negative_slopes=False)
    assert 0.0 == float(found.bias.abs().max())
    assert 0.0 == float(found.slope[1])
    assert 0.2 == pytest.approx(float(found.slope[0]), abs=0.01)
