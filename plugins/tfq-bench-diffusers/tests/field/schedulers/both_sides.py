"""Images by our samplers and by diffusers' own schedulers, in float64.

The right values are those of diffusers' classes, called as its pipelines call them.
"""

from __future__ import annotations

import sys

import diffusers
import pytest
import torch

from tfq_bench import api
from tfq_bench_diffusers.samplers.classes import SAMPLER_CLASSES

NAMED = ("ddim", "ddpm", "pndm", "dpm-solver++", "euler")
"""Samplers that a class of diffusers computes; the other two are the papers' own spacings."""


class DoublePrecision:
    """Stands for torch or numpy inside a scheduler's module: its float32 is float64."""

    def __init__(self, library) -> None:
        self._library = library
        self.float32 = library.float64

    def __getattr__(self, name: str):
        return getattr(self._library, name)


def network(x: torch.Tensor, t: float) -> torch.Tensor:
    """Smooth in x and t, not linear."""
    return torch.tanh(x * (0.5 + t / 2000)) + 0.1 * x


def noise(step: int) -> torch.Tensor:
    """The same for both."""
    return torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(step)).double()


def ours(sampler: api.Sampler) -> torch.Tensor:
    """What the sampler ends with."""
    state = sampler.initial(noise(10_000))
    for index, t in enumerate(sampler.timesteps):
        prediction = network(sampler.network_input(state, index), float(t))
        state = sampler.step(state, prediction, index, noise(index))
    return sampler.final(state)


def theirs(name: str, steps: int, config: dict) -> tuple[list[float], torch.Tensor]:
    """Timesteps and end of diffusers' class for this sampler, reading the same configuration."""
    kind = getattr(diffusers, SAMPLER_CLASSES[name])
    given_keys = {**config, "skip_prk_steps": True} if name == "pndm" else config
    scheduler = kind.from_config({**given_keys, "_class_name": kind.__name__})
    scheduler.set_timesteps(steps)
    x = noise(10_000) * float(scheduler.init_noise_sigma)
    with pytest.MonkeyPatch.context() as patch:
        for index, t in enumerate(scheduler.timesteps):
            prediction = network(scheduler.scale_model_input(x, t), float(t))
            if name == "ddpm":  # it draws its noise itself
                module = sys.modules[kind.__module__]
                patch.setattr(module, "randn_tensor", lambda *_, i=index, **__: noise(i))
            x = scheduler.step(prediction, t, x).prev_sample
    return [float(t) for t in scheduler.timesteps], x
