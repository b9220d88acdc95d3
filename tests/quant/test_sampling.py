"""Sampling, calibration and the trajectories of a metric go through one sampler, on one noise."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from tfq_bench import seeds
from tfq_bench.metrics.trajectory import diverge
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.sample import draw
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.sampler_noise import noise_share
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.quant.state.sampler_correction import SamplerCorrection
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationNeeds

STEPS, IMAGES, SEED = 4, (0, 1, 2), 7
SAMPLERS = pytest.mark.parametrize("sampler", ["ddim", "ddim-stochastic"])


@torch.no_grad()
def by_hand(loaded, purpose, correction=None):
    """The network's input at each step, as the definition of sampling writes it down."""
    model, sampler = loaded.model, loaded.sampler
    condition = model.conditions(IMAGES, device="cpu")
    state = sampler.initial(seeds.noise(SEED, purpose, IMAGES, model.latent_shape, device="cpu"))
    inputs = []
    for step, timestep in enumerate(sampler.timesteps):
        inputs.append(sampler.network_input(state, step))
        t = torch.full((len(IMAGES),), timestep)
        prediction = guided_prediction(model, loaded.network, inputs[-1], t, condition)
        z = seeds.noise(SEED, f"{purpose}-step-{step}", IMAGES, model.latent_shape, device="cpu")
        if correction is not None:
            k, b = correction.slope[step], correction.bias[step]
            prediction = (prediction - b[:, None, None]) / (1 + k)
            z = z * noise_share(loaded, step, float(correction.variance[step] / (1 + k) ** 2))
        state = sampler.step(state, prediction, step, z if sampler.stochastic else None)
    return inputs


def seen(loaded, run):
    """What `run` asks networks about, as `[step][call]`."""
    steps = {timestep: [] for timestep in loaded.sampler.timesteps}
    original = loaded.model.predict

    def recorded(network, x, timestep, condition):
        steps[timestep[0].item()].append(x)
        return original(network, x, timestep, condition)

    with patch.object(loaded.model, "predict", recorded):
        run()
    return list(steps.values())


@SAMPLERS
def test_three_users_of_one_loop(sampler):
    """To the last bit, all three see what the definition says, for their purpose."""
    loaded = load_tiny(steps=STEPS, sampler=sampler)
    lowered = simulate(loaded, None)

    def sampled():
        draw(loaded, lowered, IMAGES, seed=SEED, batch=3, progress=lambda *_: None)

    def compared():
        diverge(loaded, lowered, images=len(IMAGES), seed=SEED)

    samples = by_hand(loaded, "sampling")
    for run in (sampled, compared):
        for expected, found in zip(samples, seen(loaded, run), strict=True):
            assert found
            assert all(torch.equal(expected, x) for x in found)
    needs = CalibrationNeeds(samples=tuple((s, i) for s in range(STEPS) for i in IMAGES))
    data = capture(loaded, needs, seed=SEED, batch=3, progress=lambda *_: None)
    assert torch.equal(torch.cat(by_hand(loaded, "calibration")), data.x)


@SAMPLERS
@torch.no_grad()
def test_twins_go_their_own_ways(sampler):
    """Equal predictions lead twins to equal states, others do not lead the first one astray."""
    loaded = load_tiny(steps=STEPS, sampler=sampler)
    one = SampledBatch(loaded, IMAGES, seed=SEED, purpose="sampling")
    other = one.twin()
    for batch in (one, other):
        batch.advance(torch.ones_like(batch.network_input()))
    assert torch.equal(one.latents(), other.latents())
    before = one.latents().clone()
    third = one.twin()
    third.advance(torch.zeros_like(before))
    assert (1, 2) == (one.step, third.step)
    assert torch.equal(before, one.latents())


@SAMPLERS
def test_a_correction_acts_wherever_the_network_predicts(sampler):
    """Images and a metric's trajectory are those of the corrected prediction and noise."""
    loaded = load_tiny(steps=STEPS, sampler=sampler)
    correction = SamplerCorrection(
        slope=torch.linspace(-0.2, 0.1, STEPS),
        bias=torch.arange(3.0 * STEPS).reshape(STEPS, 3) / 50,
        variance=torch.full((STEPS,), 1e-3),
    )
    lowered = replace(simulate(loaded, None), correction=correction)

    def sampled():
        draw(loaded, lowered, IMAGES, seed=SEED, batch=3, progress=lambda *_: None)

    def compared():
        diverge(loaded, lowered, images=len(IMAGES), seed=SEED)

    expected = by_hand(loaded, "sampling", correction)
    for step, calls in enumerate(seen(loaded, sampled)):
        torch.testing.assert_close(expected[step], calls[0])
    for step, calls in enumerate(seen(loaded, compared)):
        torch.testing.assert_close(expected[step], calls[-1])
    full = by_hand(loaded, "sampling")
    for step, calls in enumerate(seen(loaded, compared)):
        assert torch.equal(full[step], calls[0])
    assert not torch.allclose(full[1], expected[1])
