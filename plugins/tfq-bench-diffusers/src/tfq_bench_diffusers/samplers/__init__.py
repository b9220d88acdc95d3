"""Samplers as pure functions, from diffusers' scheduler configurations.

`classes` says which configurations are understood, `schedule` what they mean, `ddim`, `euler` and
`multistep` step. Not here: reading a model's files, and any random number, which steps are given.
May import `tfq_bench.api`, torch and numpy; nothing else of this distribution, and no diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfq_bench import api
from tfq_bench_diffusers.samplers.classes import (
    CLASSES,
    HARMLESS,
    OFF,
    SAMPLER_CLASSES,
    settings,
)
from tfq_bench_diffusers.samplers.ddim import Ddim, Ddpm
from tfq_bench_diffusers.samplers.euler import Euler
from tfq_bench_diffusers.samplers.multistep import DpmSolver, Plms
from tfq_bench_diffusers.samplers.schedule import Schedule

__all__ = ["SAMPLERS", "ignored_keys", "make_sampler"]

SAMPLERS: Mapping[str, Callable[[Schedule, int, Mapping[str, Any]], api.Sampler]] = {
    "ddim": lambda schedule, steps, _: Ddim(schedule, steps, "config"),
    "ddim-quadratic": lambda schedule, steps, _: Ddim(schedule, steps, "quadratic"),
    "ddim-compvis": lambda schedule, steps, _: Ddim(schedule, steps, "compvis"),
    "ddpm": lambda schedule, steps, given: Ddpm(schedule, steps, given["variance_type"]),
    "pndm": lambda schedule, steps, _: Plms(schedule, steps),
    "dpm-solver++": DpmSolver,
    "euler": lambda schedule, steps, given: Euler(schedule, steps, given["final_sigmas_type"]),
}

OVERRULED: Mapping[str, frozenset[str]] = {
    "ddim-quadratic": frozenset({"timestep_spacing", "steps_offset"}),
    "ddim-compvis": frozenset({"timestep_spacing", "steps_offset", "set_alpha_to_one"}),
}
"""Keys of its class that a sampler answers by what it is."""


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


def ignored_keys(name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a scheduler's configuration that change nothing under the sampler called `name`.

    Args:
        config: as for `make_sampler`, which has accepted it.
    """
    honoured = {*CLASSES[SAMPLER_CLASSES[name]], *OFF} - HARMLESS - OVERRULED.get(name, frozenset())
    return tuple(key for key in config if key not in honoured and not key.startswith("_"))
