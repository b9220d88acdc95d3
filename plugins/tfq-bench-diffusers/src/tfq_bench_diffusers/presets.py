"""Factories of the named models: `presets:sd_v1_4` makes what the provider `sd-v1-4` offers."""

from __future__ import annotations

from functools import partial

from tfq_bench_diffusers.families import PRESETS
from tfq_bench_diffusers.model import DiffusersModel

__all__: list[str] = []


def __getattr__(name: str) -> partial[DiffusersModel]:
    preset = name.replace("_", "-")
    if preset not in PRESETS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'", name=name)
    return partial(DiffusersModel, preset=preset)
