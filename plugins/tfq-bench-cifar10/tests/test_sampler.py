"""DDIM against diffusers' scheduler and against the equation, in float64."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from tfq_bench_cifar10.model import unconditional
from tfq_bench_cifar10.network import alphas_cumprod


def ddim(name, steps):
    """The sampler that the embedded models have."""
    return unconditional().sampler(name, steps)


@pytest.fixture
def tensors():
    """Makes float64 noise `[2, 3, 32, 32]`, the same for the same seed."""

    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((2, 3, 32, 32), generator=generator, dtype=torch.float64)

    return make


@pytest.mark.parametrize("steps", [1, 7, 10, 50, 1000])
def test_uniform_steps_are_those_of_diffusers(tensors, steps):
    """The same timesteps and, at each of up to fifty, the same next state to 1e-12."""
    scheduler = DDIMScheduler(clip_sample=True, timestep_spacing="leading")
    scheduler.alphas_cumprod = alphas_cumprod()  # its own are float32
    scheduler.set_timesteps(steps)
    sampler = ddim("ddim", steps)
    assert scheduler.timesteps.tolist() == list(sampler.timesteps)
    for index in range(0, steps, math.ceil(steps / 50)):
        x, epsilon = tensors(2 * index), tensors(2 * index + 1)
        expected = scheduler.step(epsilon, sampler.timesteps[index], x).prev_sample
        found = sampler.step(x, epsilon, index, None)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_quadratic_timesteps_are_squares_up_to_800():
    """Step i of 11 is 8 i^2, where its float64 square is not cut below an integer."""
    found = ddim("ddim-quadratic", 11).timesteps[::-1]
    expected = [8 * i * i for i in range(11)]
    assert all(e - f in (0, 1) for e, f in zip(expected, found, strict=True))
    gaps = [b - a for a, b in pairwise(found)]
    assert gaps == sorted(gaps)


@pytest.mark.parametrize("name", ["ddim", "ddim-quadratic"])
def test_each_step_is_equation_12(tensors, name):
    """Every step goes to the next timestep of its own list, the last one to the clipped image."""
    sampler, signal = ddim(name, 9), alphas_cumprod()
    for index, t in enumerate(sampler.timesteps):
        x, epsilon = tensors(index), tensors(100 + index)
        now = signal[t]
        after = (
            signal[sampler.timesteps[index + 1]] if index < 8 else torch.ones((), dtype=now.dtype)
        )
        image = ((x - (1 - now).sqrt() * epsilon) / now.sqrt()).clamp(-1, 1)
        expected = after.sqrt() * image + (1 - after).sqrt() * epsilon
        found = sampler.step(x, epsilon, index, None)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["ddim", "ddim-quadratic"])
def test_a_perfect_prediction_leads_to_the_image(tensors, name):
    """With the true noise at every step, the image comes back: no step misses the next one."""
    sampler = ddim(name, 20)
    image, epsilon = tensors(0).clamp(-1, 1), tensors(1)
    signal = alphas_cumprod()[sampler.timesteps[0]]
    x = signal.sqrt() * image + (1 - signal).sqrt() * epsilon
    for index in range(20):
        x = sampler.step(x, epsilon, index, None)
    torch.testing.assert_close(x, image, rtol=0, atol=1e-9)


def test_float32_states_stay_float32_and_close(tensors):
    """Coefficients in float64 do not promote the state; the error is that of float32."""
    sampler = ddim("ddim", 10)
    for index in range(10):
        x, epsilon = tensors(index), tensors(100 + index)
        found = sampler.step(x.float(), epsilon.float(), index, None)
        assert torch.float32 == found.dtype
        expected = sampler.step(x, epsilon, index, None)
        # x / sqrt(alpha-bar) magnifies rounding where little signal is left, at most 158 times.
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


def test_definition_tells_spacings_apart():
    """Two samplers with other timesteps have other definitions."""
    definitions = [ddim(name, 5).definition for name in ("ddim", "ddim-quadratic")]
    assert definitions[0]["timesteps"] == [800, 600, 400, 200, 0]
    assert definitions[0] != definitions[1]


def test_the_published_hundred_quadratic_steps_repeat_the_smallest(tensors):
    """100 steps up to 800 fall on few distinct values near 0; a repeated step changes nothing."""
    sampler = ddim("ddim-quadratic", 100)
    assert (100, 800, 0) == (len(sampler.timesteps), sampler.timesteps[0], sampler.timesteps[-1])
    repeated = [i for i in range(99) if sampler.timesteps[i] == sampler.timesteps[i + 1]]
    assert repeated
    signal = alphas_cumprod()[sampler.timesteps[repeated[0]]]
    image, epsilon = tensors(0).clamp(-1, 1), tensors(1)
    x = signal.sqrt() * image + (1 - signal).sqrt() * epsilon
    torch.testing.assert_close(sampler.step(x, epsilon, repeated[0], None), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["ddim", "ddim-quadratic"])
@pytest.mark.parametrize("steps", [2, 7, 20, 50, 100, 1000])
def test_each_step_rounds_as_the_published_numbers_did(tensors, name, steps, dtype):
    """To the bit, with torch's betas: the digest of an image set is a digest of these roundings."""
    sampler, alpha_bar = ddim(name, steps), alphas_cumprod()
    ab = [*(float(alpha_bar[t]) for t in sampler.timesteps), 1.0]
    x, eps = tensors(0).to(dtype), tensors(1).to(dtype)
    for index, (ab_t, ab_prev) in enumerate(pairwise(ab)):
        x0 = ((x - (1.0 - ab_t) ** 0.5 * eps) / ab_t**0.5).clamp(-1.0, 1.0)
        expected = torch.add(ab_prev**0.5 * x0, eps, alpha=(1.0 - ab_prev) ** 0.5)
        assert torch.equal(expected, sampler.step(x, eps, index, None))


def test_stored_results_are_found_by_the_definition():
    """Not a word of it may change while the numbers are the same."""
    expected = {
        "name": "ddim-quadratic",
        "eta": 0.0,
        "timesteps": [800, 450, 200, 50, 0],
        "schedule": "linear beta 1e-4..0.02, 1000 steps",
        "clip": "predicted image to [-1, 1], epsilon kept",
    }
    assert expected == ddim("ddim-quadratic", 5).definition
