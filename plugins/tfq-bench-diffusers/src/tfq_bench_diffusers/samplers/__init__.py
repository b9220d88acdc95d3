"""Samplers as pure functions, from diffusers' scheduler configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfq_bench import api
from tfq_bench_diffusers.samplers.classes import settings
from tfq_bench_diffusers.samplers.ddim import Ddim, Ddpm
from tfq_bench_diffusers.samplers.euler import Euler
from tfq_bench_diffusers.samplers.multistep import DpmSolver, Plms
from tfq_bench_diffusers.samplers.schedule import Schedule

__all__ = ["SAMPLERS", "make_sampler"]

SAMPLERS: Mapping[str, Callable[[Schedule, int, Mapping[str, Any]], api.Sampler]] = {
    "ddim": lambda schedule, steps, _: Ddim(schedule, steps, "config"),
    "ddim-quadratic": lambda schedule, steps, _: Ddim(schedule, steps, "quadratic"),
    "ddim-compvis": lambda schedule, steps, _: Ddim(schedule, steps, "compvis"),
    "ddpm": lambda schedule, steps, given: Ddpm(schedule, steps, given["variance_type"]),
    "pndm": lambda schedule, steps, _: Plms(schedule, steps),
    "dpm-solver++": DpmSolver,
    "euler": lambda schedule, steps, given: Euler(schedule, steps, given["final_sigmas_type"]),
}


def make_sampler(name: str, steps: int, config: Mapping[str, Any]) -> api.Sampler:
    """The sampler called `name`, a key of `SAMPLERS`, with `steps` steps.

    Args:
        config: content of the model's `scheduler_config.json`, its class under `_class_name`.

    Raises:
        SuiteError: an unknown name, an impossible number of steps, or a configuration with a
            class, key or value that is not understood.
    """
    if name not in SAMPLERS:
        raise api.SuiteError(
            f"[sampling]: unknown sampler '{name}'; expected one of {', '.join(SAMPLERS)}."
        )
    given = settings(config, name)
    return SAMPLERS[name](Schedule(given, name), steps, given)
