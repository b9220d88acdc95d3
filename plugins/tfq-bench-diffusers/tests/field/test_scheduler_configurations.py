"""Any scheduler configuration samples as diffusers' own scheduler, or is refused with the key.

The right values are those of diffusers' classes in float64, called as its pipelines call them.
"""

from __future__ import annotations

import inspect
import math
import sys
from functools import partial

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench import api
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench_diffusers.samplers import ignored_keys, make_sampler
from tfq_bench_diffusers.samplers.classes import CLASSES, HARMLESS, SAMPLER_CLASSES, settings

NAMED = ("ddim", "ddpm", "pndm", "dpm-solver++", "euler")
"""Samplers that a class of diffusers computes; the other two are the papers' own spacings."""


class DoublePrecision:
    """Stands for torch or numpy inside a scheduler's module: its float32 is float64."""

    def __init__(self, library) -> None:
        self._library = library
        self.float32 = library.float64

    def __getattr__(self, name: str):
        return getattr(self._library, name)


@pytest.fixture(scope="module", autouse=True)
def _in_double():
    modules = {sys.modules[getattr(diffusers, kind).__module__] for kind in CLASSES}
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "torch", DoublePrecision(torch))
            patch.setattr(module, "np", DoublePrecision(np))
        yield


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


SPACINGS = st.sampled_from(["leading", "trailing", "linspace"])
KEYS: dict[str, st.SearchStrategy] = {
    "num_train_timesteps": st.sampled_from([1, 2, 10, 50, 100, 999, 1000]),
    "beta_start": st.sampled_from([1e-4, 0.00085, 0.01, 0.0, 1.0]),
    "beta_end": st.sampled_from([0.02, 0.012, 0.2, 2.0, -1]),
    "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]),
    "trained_betas": st.one_of(st.none(), st.lists(st.floats(0.001, 0.3), max_size=10)),
    "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample", "flow_prediction"]),
    "steps_offset": st.sampled_from([0, 1, 2, 40]),
    "timestep_spacing": SPACINGS,
    "clip_sample": st.booleans(),
    "clip_sample_range": st.sampled_from([1.0, 0.5, 3]),
    "set_alpha_to_one": st.booleans(),
    "skip_prk_steps": st.booleans(),
    "variance_type": st.sampled_from(
        [None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned"]
    ),
    "final_sigmas_type": st.sampled_from(["zero", "sigma_min", "other"]),
    "solver_order": st.sampled_from([1, 2, 2, 3]),
    "solver_type": st.sampled_from(["midpoint", "midpoint", "heun", "bh2"]),
    "algorithm_type": st.sampled_from(["dpmsolver++", "dpmsolver++", "dpmsolver", "deis"]),
    "lower_order_final": st.booleans(),
    "euler_at_final": st.booleans(),
    "lambda_min_clipped": st.sampled_from([-math.inf, -5.1, -1.0, 20.0]),
    "interpolation_type": st.sampled_from(["linear", "linear", "log_linear"]),
    "timestep_type": st.sampled_from(["discrete", "continuous"]),
    "sigma_min": st.sampled_from([None, 0.1]),
    "sigma_max": st.sampled_from([None, 20.0]),
    "use_karras_sigmas": st.sampled_from([False, False, True, None]),
    "use_exponential_sigmas": st.sampled_from([False, False, True]),
    "use_beta_sigmas": st.just(value=False),
    "use_lu_lambdas": st.sampled_from([False, True]),
    "use_flow_sigmas": st.sampled_from([False, True]),
    "use_dynamic_shifting": st.sampled_from([False, True]),
    "thresholding": st.sampled_from([False, False, True]),
    "rescale_betas_zero_snr": st.sampled_from([False, False, True]),
    "dynamic_thresholding_ratio": st.sampled_from([0.995, 0.5]),
    "sample_max_value": st.sampled_from([1.0, 5.0]),
    "flow_shift": st.sampled_from([1.0, 3.0]),
    "time_shift_type": st.sampled_from(["exponential", "linear"]),
    "unheard_of": st.integers(),
}
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@st.composite
def configurations(draw, kind: str | None = None):
    """A configuration of an understood class: some keys, mostly sensible, now and then one odd."""
    native = kind or draw(st.sampled_from(sorted(CLASSES)))
    likely = [key for key in KEYS if key in CLASSES[native]]
    keys = draw(st.lists(st.sampled_from(likely), unique=True, max_size=6))
    keys += draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=1))
    config = {key: draw(KEYS[key]) for key in keys}
    if draw(st.integers(0, 9)) == 0:
        config[draw(st.sampled_from(sorted(KEYS)))] = draw(STRANGE)
    if draw(st.booleans()):
        config["skip_prk_steps"] = True
    return {"_class_name": native, **config}


def both(name: str, steps: int, config: dict):
    """The sampler, or None and why not; what diffusers gives, None where it gives nothing finite.

    Returns:
        `(sampler, refusal, (times, samples))`.
    """
    try:
        found = make_sampler(name, steps, config)
    except api.TfqError as error:
        return None, str(error), None
    try:
        times, expected = theirs(name, steps, config)
    except Exception:  # diffusers does not run it
        return found, "", None
    # Not finite: it divides by zero.
    return found, "", (times, expected) if torch.isfinite(expected).all() else None


def causes(name: str, config: dict) -> tuple[str, ...]:
    """One of these is in a refusal: a key that is there or missing, or the steps."""
    return ("[sampling]", "_class_name", "1 - beta", *config, *CLASSES[SAMPLER_CLASSES[name]])


def times_of(sampler) -> list[float]:
    """What diffusers calls timesteps."""
    return [float(t) for t in sampler.timesteps]


def check_as_diffusers_or_refused(name, steps, config) -> bool:
    """Times and samples are those of diffusers, or a refusal names its cause; whether it ran."""
    found, refusal, right = both(name, steps, config)
    if found is None:
        assert any(cause in refusal for cause in causes(name, config)), refusal
        assert "\n" not in refusal
    elif right is not None:
        assert right[0] == pytest.approx(times_of(found), abs=1e-3)
        torch.testing.assert_close(ours(found), right[1], rtol=1e-4, atol=1e-4)
    return found is not None and right is not None


@pytest.mark.parametrize("name", NAMED)
def test_fuzz_configurations_of_the_samplers_own_class(name):
    """As diffusers, or refused by its cause; an eighth and more is sampled, or it were vacuous."""
    sampled = []

    @fuzz(60)
    @given(configurations(SAMPLER_CLASSES[name]), st.sampled_from([1, 2, 3, 7, 16, 30, 50]))
    def check(config, steps):
        sampled.append(check_as_diffusers_or_refused(name, steps, config))

    check()
    assert sum(sampled) > len(sampled) / 8


@fuzz(150)
@given(st.sampled_from(NAMED), configurations(), st.sampled_from([1, 2, 3, 5, 10, 20, 33, 100]))
def test_fuzz_configurations_of_any_class(name, config, steps):
    """Also where another class's configuration is read, as by `from_config`."""
    check_as_diffusers_or_refused(name, steps, config)


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
