"""Which schedulers of diffusers are understood, with their keys and defaults, and what is refused.

A sampler of ours stands for one class of diffusers. What it is to do is what diffusers does with
`Pipeline.from_pretrained(folder, scheduler=THAT_CLASS.from_pretrained(folder / "scheduler"))`: keys
that the file states and the class knows hold, missing ones have the class's own defaults, and
others are left alone. Every key of such a class is honoured, is harmless, or is refused by name
where its value asks for what is not implemented. Imports no torch and no diffusers: the tables are
held against diffusers' signatures by a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfq_bench import api

__all__ = ["CLASSES", "HARMLESS", "SAMPLER_CLASSES", "scheduler_class", "settings"]

_BETAS: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_CLIPPING: Mapping[str, Any] = {
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
CLASSES: Mapping[str, Mapping[str, Any]] = {
    "DDPMScheduler": {**_BETAS, **_CLIPPING, "variance_type": "fixed_small"},
    "DDIMScheduler": {**_BETAS, **_CLIPPING, "set_alpha_to_one": True},
    "PNDMScheduler": {
        **_BETAS,
        "skip_prk_steps": False,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
    },
    "EulerDiscreteScheduler": {
        **_BETAS,
        "interpolation_type": "linear",
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "sigma_min": None,
        "sigma_max": None,
        "timestep_spacing": "linspace",
        "timestep_type": "discrete",
        "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero",
    },
    "DPMSolverMultistepScheduler": {
        **_BETAS,
        "solver_order": 2,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "timestep_spacing": "linspace",
        "rescale_betas_zero_snr": False,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    },
}
"""Classes that are understood, with every key and its default in diffusers."""

SAMPLER_CLASSES: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "ddim-quadratic": "DDIMScheduler",
    "ddim-compvis": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "dpm-solver++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}
"""The class of diffusers that a sampler of ours computes like."""

OFF: Mapping[str, str] = {
    "thresholding": "dynamic thresholding",
    "use_karras_sigmas": "Karras spacing",
    "use_exponential_sigmas": "exponential spacing",
    "use_beta_sigmas": "beta spacing",
    "use_flow_sigmas": "flow matching",
    "use_lu_lambdas": "Lu's spacing",
    "use_dynamic_shifting": "dynamic shifting",
    "rescale_betas_zero_snr": "betas rescaled to zero terminal SNR",
}
"""Keys that must be false, whatever the sampler: they say how the model wants to be sampled."""

HARMLESS = frozenset(
    (
        "dynamic_thresholding_ratio",  # read under `thresholding`
        "sample_max_value",  # read under `thresholding`
        "flow_shift",  # read under `use_flow_sigmas`
        "time_shift_type",  # read under `use_dynamic_shifting`
        "sigma_min",  # read under Karras, exponential and beta spacing
        "sigma_max",
    )
)
"""Keys of `CLASSES` that change nothing while the keys of `OFF` are false."""

RETIRED: Mapping[str, tuple[Any, ...]] = {
    "tensor_format": ("pt", "np", None),
    "timestep_values": (None,),
    "predict_epsilon": (True, None),
}
"""Keys that old versions wrote and no class reads any more, with the values that say nothing."""

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "final_sigmas_type": ("zero", "sigma_min"),
    "algorithm_type": ("dpmsolver++",),
    "solver_type": ("midpoint",),
    "solver_order": (1, 2),
}
FLAGS = (
    "clip_sample",
    "set_alpha_to_one",
    "skip_prk_steps",
    "lower_order_final",
    "euler_at_final",
)
MOST_STEPS = 100_000
"""Training timesteps; no model comes near."""


def scheduler_class(config: Mapping[str, Any]) -> str:
    """The class that a scheduler's configuration names.

    Raises:
        SuiteError: it is none of `CLASSES`.
    """
    kind = config.get("_class_name")
    if kind in CLASSES:
        return str(kind)
    raise api.SuiteError(
        f"the model's scheduler is of class {api.printable(repr(kind), 80)} (key `_class_name`), "
        f"which is not understood; expected one of {', '.join(CLASSES)}. Where one of them fits "
        "the model, save it into its folder: `DDIMScheduler(...).save_pretrained(FOLDER + "
        "'/scheduler')`."
    )


def settings(config: Mapping[str, Any], sampler: str) -> dict[str, Any]:
    """All keys of the class that `sampler` stands for, with the values that hold.

    Args:
        config: content of a `scheduler_config.json`, with the class under `_class_name`.

    Raises:
        SuiteError: a class, key or value that is not understood; names it.
    """
    native = scheduler_class(config)
    target = SAMPLER_CLASSES[sampler]
    stated = {key: value for key, value in config.items() if not key.startswith("_")}
    known = {key for keys in CLASSES.values() for key in keys}
    for key, value in stated.items():
        if key in RETIRED:
            if value not in RETIRED[key]:
                raise _refusal(sampler, key, value, f"one of {RETIRED[key]}, or no such key")
        elif key not in known:
            raise _refusal(sampler, key, value, "no such key: it is not understood; remove it")
    whole = {**CLASSES[native], **CLASSES[target]}
    whole.update((key, value) for key, value in stated.items() if key in known)
    for key, value in whole.items():
        if key in CLASSES[native] or key in CLASSES[target]:
            _check(sampler, key, value, honoured=key in CLASSES[target])
    if native == target == "PNDMScheduler" and not whole["skip_prk_steps"]:
        raise _refusal(
            sampler, "skip_prk_steps", False, "true: Runge-Kutta steps are not implemented"
        )
    if target == "PNDMScheduler" and whole["prediction_type"] == "sample":
        raise _refusal(sampler, "prediction_type", "sample", "epsilon or v_prediction")
    return {key: whole[key] for key in CLASSES[target]}


def _check(sampler: str, key: str, value: Any, *, honoured: bool) -> None:
    if key in OFF:
        if value is not False:
            raise _refusal(sampler, key, value, f"false: {OFF[key]} is not implemented")
    elif not honoured:
        return  # another class's key: diffusers leaves it alone, and so do we
    elif key in CHOICES:
        if isinstance(value, bool) or not isinstance(value, str | int) or value not in CHOICES[key]:
            raise _refusal(sampler, key, value, " or ".join(map(str, CHOICES[key])))
    elif key in FLAGS:
        if not isinstance(value, bool):
            raise _refusal(sampler, key, value, "true or false")
    elif key == "num_train_timesteps":
        if not _whole(value) or not 1 <= value <= MOST_STEPS:
            raise _refusal(sampler, key, value, f"a whole number from 1 to {MOST_STEPS}")
    elif key == "steps_offset":
        if not _whole(value) or value < 0:
            raise _refusal(sampler, key, value, "a whole number, 0 or more")
    elif key in ("beta_start", "beta_end"):
        if not _number(value) or not 0.0 < value < 1.0:
            raise _refusal(sampler, key, value, "a number between 0 and 1")
    elif key == "clip_sample_range":
        if not _number(value) or value <= 0.0:
            raise _refusal(sampler, key, value, "a number above 0")
    elif key == "lambda_min_clipped":
        if value != -math.inf and not _number(value):
            raise _refusal(sampler, key, value, "a number, or -Infinity")
    elif key == "variance_type":
        _check_variance(sampler, value)


def _check_variance(sampler: str, value: Any) -> None:
    fixed = ("fixed_small", "fixed_small_log", "fixed_large")
    # null, as DPM-Solver's configurations say, is `fixed_small` to diffusers.
    if sampler == "ddpm" and value is not None and value not in fixed:
        told = f"{', '.join(fixed)}: use 'ddim' for networks that learn their variance"
        raise _refusal(sampler, "variance_type", value, told)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refusal(sampler: str, key: str, value: Any, expected: str) -> api.SuiteError:
    return api.SuiteError(
        f"sampler '{sampler}': the model's scheduler says {api.printable(key, 80)} = "
        f"{api.printable(repr(value), 80)}; expected {expected}."
    )
