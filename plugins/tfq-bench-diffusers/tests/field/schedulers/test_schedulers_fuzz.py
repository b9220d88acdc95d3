"""Any scheduler configuration samples as diffusers' own scheduler, or is refused with the key."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench import api
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench_diffusers.samplers import make_sampler
from tfq_bench_diffusers.samplers.classes import CLASSES, SAMPLER_CLASSES

from .both_sides import NAMED, ours, theirs

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
