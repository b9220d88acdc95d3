"""Keys of a scheduler's configuration: honoured as in diffusers, ignored in words, or refused."""

from __future__ import annotations

import inspect
import math
from functools import partial

import diffusers
import pytest
import torch

from tfq_bench import api
from tfq_bench_diffusers.samplers import ignored_keys, make_sampler
from tfq_bench_diffusers.samplers.classes import CLASSES, HARMLESS, SAMPLER_CLASSES, settings

from .both_sides import NAMED, ours, theirs


def assert_equal(name: str, steps: int, config: dict) -> None:
    """Both come to the same image over the same timesteps."""
    found = make_sampler(name, steps, config)
    times, expected = theirs(name, steps, config)
    assert times == pytest.approx([float(t) for t in found.timesteps], abs=1e-3)
    torch.testing.assert_close(ours(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_tables_are_diffusers_own(kind):
    """Every key of the class and its default; a key that a new version adds is not understood."""
    signature = inspect.signature(getattr(diffusers, kind).__init__).parameters
    expected = {name: one.default for name, one in signature.items() if name != "self"}
    assert expected == dict(CLASSES[kind])


@pytest.mark.parametrize("native", sorted(CLASSES))
@pytest.mark.parametrize("name", NAMED)
def test_missing_keys_have_the_defaults_of_the_class(name, native):
    """An old configuration that names nothing but its class."""
    config = {"_class_name": native, "_diffusers_version": "0.2.0"}
    if native == "PNDMScheduler":
        config["skip_prk_steps"] = True
    assert_equal(name, 7, config)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        7,
        "FlowMatchEulerDiscreteScheduler",
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
        "IPNDMScheduler",
        "LCMScheduler",
        "TCDScheduler",
        "CMStochasticIterativeScheduler",
        "ScoreSdeVeScheduler",
        "UnCLIPScheduler",
        "HeunDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DDPMWuerstchenScheduler",
        "MyOwnScheduler",
    ],
)
@pytest.mark.parametrize("name", sorted(SAMPLER_CLASSES))
def test_other_classes_are_refused_by_name(name, kind):
    """Flow matching, EDM, consistency models: none has the betas that a sampler needs."""
    with pytest.raises(api.SuiteError, match=str(kind)):
        make_sampler(name, 5, {"_class_name": kind, "num_train_timesteps": 1000})


REFUSED = [
    ("thresholding", True),
    ("rescale_betas_zero_snr", True),
    ("use_karras_sigmas", True),
    ("use_exponential_sigmas", True),
    ("use_beta_sigmas", True),
    ("use_flow_sigmas", True),
    ("use_lu_lambdas", True),
    ("use_dynamic_shifting", True),
    ("prediction_type", "flow_prediction"),
    ("beta_schedule", "sigmoid"),
    ("beta_start", 1.5),
    ("beta_end", -0.1),
    ("beta_end", math.nan),
    ("beta_end", math.inf),
    ("beta_end", "0.02"),
    ("num_train_timesteps", 0),
    ("num_train_timesteps", 10**12),
    ("num_train_timesteps", 10.5),
    ("steps_offset", -1),
    ("timestep_spacing", "karras"),
    ("timestep_spacing", None),
    ("trained_betas", [0.1, 0.2]),
    ("trained_betas", [0.1] * 999 + [1.0]),
    ("trained_betas", [0.1] * 999 + [math.nan]),
    ("trained_betas", [0.999] * 1000),
    ("trained_betas", 0.5),
    ("final_sigmas_type", "denoise_to_zero"),
    ("interpolation_type", "log_linear"),
    ("timestep_type", "continuous"),
    ("solver_order", 3),
    ("solver_type", "heun"),
    ("algorithm_type", "sde-dpmsolver++"),
    ("lower_order_final", "yes"),
    ("lambda_min_clipped", 100.0),
    ("clip_sample", "false"),
    ("clip_sample_range", -1.0),
    ("set_alpha_to_one", None),
    ("variance_type", "learned_range"),
    ("skip_prk_steps", False),
    ("sigma_data", 0.5),
    ("shift", 3.0),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_is_not_implemented_is_refused_by_its_key(key, value):
    """In every sampler whose class knows the key, and wherever the key is a stranger."""
    knowing = [name for name in NAMED if key in CLASSES[SAMPLER_CLASSES[name]]] or NAMED
    if key == "variance_type":
        knowing = ["ddpm"]  # the others have no variance of their own
    for name in knowing:
        config = {"_class_name": SAMPLER_CLASSES[name], "skip_prk_steps": True, key: value}
        with pytest.raises(api.SuiteError, match=f"{key}|1 - beta"):
            make_sampler(name, 5, config)


def test_models_own_wish_is_refused_whatever_the_sampler():
    """A model that is to be sampled with zero terminal SNR is not sampled without."""
    config = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
    for name in SAMPLER_CLASSES:
        with pytest.raises(api.SuiteError, match="rescale_betas_zero_snr"):
            make_sampler(name, 5, config)


def test_stale_keys_of_other_classes_change_nothing():
    """Stable Diffusion's PNDM states `clip_sample`; DDIM, which reads it, honours it."""
    config = {
        "_class_name": "PNDMScheduler",
        "skip_prk_steps": True,
        "clip_sample": False,
        "tensor_format": "pt",
        "timestep_values": None,
    }
    for name in NAMED:
        assert_equal(name, 9, {key: value for key, value in config.items() if key[0] != "t"})
        make_sampler(name, 9, config)
    assert settings(config, "ddim")["clip_sample"] is False


def test_harmless_keys_are_known_to_the_tables():
    """The list of what changes nothing names real keys only."""
    assert HARMLESS <= {key for keys in CLASSES.values() for key in keys}
    config = {"_class_name": "EulerDiscreteScheduler"}
    plain = partial(make_sampler, "euler", 6)
    changed = plain({**config, "sigma_min": 0.3, "sigma_max": 9.0})
    assert torch.equal(ours(plain(config)), ours(changed))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("kind", CLASSES)
def test_ignored_keys_are_told_and_change_nothing(name, kind):
    """Without them the sampler is the same; what is not told of is a key that it reads."""
    every = {key: value for keys in CLASSES.values() for key, value in keys.items()}
    config = {"_class_name": kind, **every, "skip_prk_steps": True, "tensor_format": "pt"}
    config |= {**CLASSES[kind], "variance_type": "fixed_small", "skip_prk_steps": True}
    told = ignored_keys(name, config)
    assert {"tensor_format", "flow_shift"} <= {*told}
    assert not {"_class_name", "beta_start", "prediction_type"} & {*told}
    without = {key: value for key, value in config.items() if key not in told}
    assert () == ignored_keys(name, without)
    whole, rest = make_sampler(name, 6, config), make_sampler(name, 6, without)
    assert whole.timesteps == rest.timesteps
    torch.testing.assert_close(ours(whole), ours(rest), rtol=0, atol=0)
