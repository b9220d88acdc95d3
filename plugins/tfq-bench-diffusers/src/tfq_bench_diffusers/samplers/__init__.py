"""Samplers as pure functions, from diffusers' scheduler configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfq_bench import api
from tfq_bench_diffusers.samplers.ddim import Ddim, Ddpm
from tfq_bench_diffusers.samplers.euler import Euler
from tfq_bench_diffusers.samplers.multistep import DpmSolver, Plms
from tfq_bench_diffusers.samplers.schedule import Schedule

__all__ = ["SAMPLERS", "make_sampler"]

SAMPLERS: Mapping[str, Callable[[Schedule, int, Mapping[str, Any]], api.Sampler]] = {
    "ddim": lambda schedule, steps, _: Ddim(schedule, steps, "config"),
    "ddim-quadratic": lambda schedule, steps, _: Ddim(schedule, steps, "quadratic"),
    "ddim-compvis": lambda schedule, steps, _: Ddim(schedule, steps, "compvis"),
    "ddpm": lambda schedule, steps, config: Ddpm(
        schedule, steps, str(config.get("variance_type") or "fixed_small")
    ),
    "pndm": lambda schedule, steps, _: Plms(schedule, steps),
    "dpm-solver++": lambda schedule, steps, _: DpmSolver(schedule, steps),
    "euler": lambda schedule, steps, _: Euler(schedule, steps),
}


def make_sampler(name: str, steps: int, config: Mapping[str, Any]) -> api.Sampler:
    """The sampler called `name`, a key of `SAMPLERS`, with `steps` steps.

    Args:
        config: content of the model's `scheduler_config.json`, whatever its class.

    Raises:
        SuiteError: an unknown name, an impossible number of steps, or a configuration that asks
            for something that is not implemented.
    """
    if name not in SAMPLERS:
        raise api.SuiteError(
            f"[sampling]: unknown sampler '{name}'; expected one of {', '.join(SAMPLERS)}."
        )
    return SAMPLERS[name](Schedule(config, name), steps, config)
