"""Samplers against diffusers' own schedulers over whole trajectories, and against theory."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)

from tfq_bench import api
from tfq_bench_diffusers import samplers
from tfq_bench_diffusers.samplers import SAMPLERS
from tfq_bench_diffusers.samplers.classes import CLASSES, SAMPLER_CLASSES

LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}


def make_sampler(name: str, steps: int, config: dict) -> api.Sampler:
    """The sampler, for a configuration of its own class."""
    kind = SAMPLER_CLASSES.get(name, "DDIMScheduler")
    return samplers.make_sampler(name, steps, {"_class_name": kind, **config})


def network(x: torch.Tensor, t: float) -> torch.Tensor:
    """A fake network: smooth in x and t, not linear."""
    return torch.tanh(x * (0.5 + t / 2000)) + 0.1 * x


def noise(step: int) -> torch.Tensor:
    """The same noise for both samplers."""
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(step)).double()


def ours(sampler: api.Sampler) -> torch.Tensor:
    """The image that a sampler ends with."""
    state = sampler.initial(noise(1000))
    for index, t in enumerate(sampler.timesteps):
        prediction = network(sampler.network_input(state, index), float(t))
        state = sampler.step(state, prediction, index, noise(index))
    return sampler.final(state)


class DoublePrecision:
    """Stands for torch or numpy inside a scheduler's module: its float32 is float64."""

    def __init__(self, library) -> None:
        self._library = library
        self.float32 = library.float64

    def __getattr__(self, name: str):
        return getattr(self._library, name)


@pytest.fixture
def in_double(monkeypatch):
    """Makes a class of diffusers' schedulers compute in float64 throughout."""

    def change(kind) -> None:
        module = sys.modules[kind.__module__]
        monkeypatch.setattr(module, "torch", DoublePrecision(torch))
        monkeypatch.setattr(module, "np", DoublePrecision(np))

    return change


def theirs(scheduler, steps: int, monkeypatch) -> tuple[list[float], torch.Tensor]:
    """Timesteps and image of a diffusers scheduler."""
    scheduler.set_timesteps(steps)
    x = noise(1000) * float(scheduler.init_noise_sigma)
    times = [float(t) for t in scheduler.timesteps]
    for index, t in enumerate(scheduler.timesteps):
        prediction = network(scheduler.scale_model_input(x, t), float(t))
        if isinstance(scheduler, DDPMScheduler):
            # It draws its noise itself; give it ours.
            module = sys.modules[DDPMScheduler.__module__]
            draw = partial(noise, index)
            monkeypatch.setattr(module, "randn_tensor", lambda *_, draw=draw, **__: draw())
        x = scheduler.step(prediction, t, x).prev_sample
        assert x.dtype == torch.float64
    return times, x


CASES = [
    ("ddim", DDIMScheduler, {**LINEAR, "clip_sample": True}, 10),
    ("ddim", DDIMScheduler, {**SCALED, "clip_sample": False, "steps_offset": 1}, 20),
    ("ddim", DDIMScheduler, {**SCALED, "clip_sample": False, "set_alpha_to_one": False}, 20),
    ("ddim", DDIMScheduler, {**COSINE, "clip_sample": False}, 25),
    (
        "ddim",
        DDIMScheduler,
        {
            **SCALED,
            "clip_sample": False,
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
        },
        8,
    ),
    ("ddim", DDIMScheduler, {**LINEAR, "clip_sample": False, "prediction_type": "sample"}, 10),
    ("ddpm", DDPMScheduler, {**LINEAR, "clip_sample": True}, 10),
    ("ddpm", DDPMScheduler, {**LINEAR, "clip_sample": False, "variance_type": "fixed_large"}, 20),
    (
        "pndm",
        PNDMScheduler,
        {**SCALED, "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False},
        10,
    ),
    ("pndm", PNDMScheduler, {**SCALED, "skip_prk_steps": True, "set_alpha_to_one": True}, 3),
    ("dpm-solver++", DPMSolverMultistepScheduler, {**SCALED, "timestep_spacing": "linspace"}, 20),
    (
        "dpm-solver++",
        DPMSolverMultistepScheduler,
        {**SCALED, "timestep_spacing": "leading", "steps_offset": 1},
        7,
    ),
    ("dpm-solver++", DPMSolverMultistepScheduler, {**LINEAR, "timestep_spacing": "trailing"}, 10),
    ("euler", EulerDiscreteScheduler, {**SCALED, "timestep_spacing": "linspace"}, 12),
    (
        "euler",
        EulerDiscreteScheduler,
        {**SCALED, "timestep_spacing": "leading", "steps_offset": 1},
        12,
    ),
    (
        "euler",
        EulerDiscreteScheduler,
        {**SCALED, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
        9,
    ),
]


@pytest.mark.parametrize(("name", "kind", "config", "steps"), CASES)
def test_trajectories_are_those_of_diffusers(name, kind, config, steps, in_double, monkeypatch):
    """The same timesteps, and the same image at the end, both in float64."""
    in_double(kind)
    times, expected = theirs(kind(**config), steps, monkeypatch)
    sampler = make_sampler(name, steps, config)
    assert times == pytest.approx([float(t) for t in sampler.timesteps], abs=1e-9)
    torch.testing.assert_close(ours(sampler), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "prediction"),
    [
        (name, kind, prediction)
        for name, kind in sorted({case[0]: case[1] for case in CASES}.items())
        for prediction in ("epsilon", "sample", "v_prediction")
        if (name, prediction) != ("pndm", "sample")  # refused
    ],
)
def test_every_prediction_type_is_that_of_diffusers(name, kind, prediction, in_double, monkeypatch):
    """What the network predicts is understood alike by every sampler, in float64."""
    in_double(kind)
    config = {**SCALED, "prediction_type": prediction, "skip_prk_steps": True}
    known = {key: value for key, value in config.items() if key in CLASSES[kind.__name__]}
    _, expected = theirs(kind(**known), 10, monkeypatch)
    torch.testing.assert_close(ours(make_sampler(name, 10, known)), expected, rtol=1e-6, atol=1e-6)


def test_quadratic_spacing_is_the_papers():
    """The published CIFAR-10 protocol; neighbours in the list are the steps that are taken."""
    sampler = make_sampler("ddim-quadratic", 100, LINEAR)
    expected = [int(t) for t in np.linspace(0, np.sqrt(800), 100) ** 2][::-1]
    assert expected == list(sampler.timesteps)
    assert len(set(sampler.timesteps)) < 100


def test_quadratic_steps_are_the_papers():
    """Equation 12 of DDIM between neighbours of the list, which diffusers cannot do."""
    sampler = make_sampler("ddim-quadratic", 20, {**LINEAR, "clip_sample": False})
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    levels = [*(float(signal[int(t)]) for t in sampler.timesteps), 1.0]
    x = noise(1000)
    for t, now, after in zip(sampler.timesteps, levels, levels[1:], strict=False):
        epsilon = network(x, float(t))
        image = (x - (1 - now) ** 0.5 * epsilon) / now**0.5
        x = after**0.5 * image + (1 - after) ** 0.5 * epsilon
    torch.testing.assert_close(ours(sampler), x, rtol=1e-12, atol=1e-12)


def test_compvis_stepping_counts_as_their_code_does():
    """400 steps of 1000 become 500, and every timestep is one higher."""
    sampler = make_sampler("ddim-compvis", 400, SCALED)
    assert 500 == len(sampler.timesteps)
    assert (999, 997, 1) == (sampler.timesteps[0], sampler.timesteps[1], sampler.timesteps[-1])


def test_fractional_timesteps_are_floats_and_whole_ones_ints():
    """They are table keys: none may be rounded."""
    fractional = make_sampler("euler", 7, {**SCALED, "timestep_spacing": "linspace"})
    assert {float} == {type(t) for t in fractional.timesteps}
    even = make_sampler("euler", 10, {**SCALED, "timestep_spacing": "leading"})
    assert {int} == {type(t) for t in even.timesteps}


def test_second_timestep_comes_twice_in_plms():
    """N steps call the network N + 1 times."""
    sampler = make_sampler("pndm", 5, {**SCALED, "skip_prk_steps": True})
    assert [800, 600, 600, 400, 200, 0] == list(sampler.timesteps)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_exact_prediction_of_a_gaussian_leads_to_it(name):
    """With the true noise of N(mu, s^2) data, samples have mean mu and deviation s."""
    mean, deviation, steps = 0.4, 0.3, 500
    more = {"timestep_spacing": "trailing", "clip_sample": False, "skip_prk_steps": True}
    sampler = make_sampler(name, steps, {**LINEAR, **more})
    start = torch.randn(20_000, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    state = sampler.initial(start)
    beta = np.linspace(1e-4, 0.02, 1000)
    signal = np.cumprod(1 - beta)
    generator = torch.Generator().manual_seed(1)
    for index, t in enumerate(sampler.timesteps):
        a = float(np.interp(t, np.arange(1000), signal))
        x = sampler.network_input(state, index)
        variance = a * deviation**2 + 1 - a
        prediction = (1 - a) ** 0.5 * (x - a**0.5 * mean) / variance
        z = torch.randn(start.shape, generator=generator).double()
        state = sampler.step(state, prediction, index, z)
    x = sampler.final(state)
    assert mean == pytest.approx(float(x.mean()), abs=0.02)
    assert deviation == pytest.approx(float(x.std()), abs=0.02)


@pytest.mark.parametrize(
    ("name", "steps", "config", "match"),
    [
        ("dimm", 10, {}, "unknown sampler 'dimm'.*ddim"),
        ("ddim", 0, {}, "takes 1 to 1000 steps"),
        ("pndm", 1, {"skip_prk_steps": True}, "takes 2 to 1000 steps"),
        ("euler", 10, {"use_karras_sigmas": True}, "Karras"),
        ("ddim", 10, {"prediction_type": "flow"}, "prediction_type"),
        ("ddim", 10, {"beta_schedule": "sigmoid"}, "beta_schedule"),
        ("ddim", 10, {"timestep_spacing": "odd"}, "timestep_spacing"),
        ("ddpm", 10, {"variance_type": "learned_range"}, "variance"),
        ("ddim", 1000, {"steps_offset": 1}, "start at timestep 1000.*up to 999"),
        (
            "euler",
            1000,
            {"steps_offset": 1, "timestep_spacing": "leading"},
            "start at timestep 1000.*up to 999",
        ),
        ("ddim-compvis", 501, {}, "start at timestep 1000.*up to 999"),
        ("ddim-compvis", 3, {}, "start at timestep 1000.*up to 999"),
        (
            "dpm-solver++",
            999,
            {"steps_offset": 1, "timestep_spacing": "leading"},
            "start at timestep 1000",
        ),
        ("dpm-solver++", 1000, {}, "needs timesteps that differ"),
        ("dpm-solver++", 1000, {"timestep_spacing": "linspace"}, "needs timesteps that differ"),
    ],
)
def test_what_is_not_implemented_is_refused(name, steps, config, match):
    """Loudly, in the suite's terms."""
    with pytest.raises(api.SuiteError, match=match):
        make_sampler(name, steps, config)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_any_number_of_steps_is_placed_or_refused(name, spacing):
    """Never a table that is read beyond its end, a division by zero, or an image of NaN."""
    x = torch.ones(1, 1, 1, 1).double()
    for steps in (1, 2, 3, 500, 501, 999, 1000):
        for offset in (0, 1):
            config = {**SCALED, "timestep_spacing": spacing, "steps_offset": offset}
            config["skip_prk_steps"] = True
            try:
                sampler = make_sampler(name, steps, config)
            except api.SuiteError:
                # A stride of 333 or 1 leads CompVis' stepping, which adds one, beyond the table.
                assert steps > 500 or (name, steps) == ("ddim-compvis", 3) or steps == 1
                continue
            assert 0 <= min(sampler.timesteps) <= max(sampler.timesteps) <= 999
            state = sampler.initial(x)
            for index in range(len(sampler.timesteps)):
                prediction = 0.1 * sampler.network_input(state, index)
                state = sampler.step(state, prediction, index, x)
            assert torch.isfinite(sampler.final(state)).all()


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_definition_lists_the_timesteps(name):
    """The exact list is part of what a number means, and JSON can hold it."""
    import json

    sampler = make_sampler(name, 10, {**SCALED, "skip_prk_steps": True})
    assert list(sampler.timesteps) == json.loads(json.dumps(sampler.definition))["timesteps"]
