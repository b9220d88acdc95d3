"""Every installed method takes every policy that methods are compared under, and keeps to it."""

from __future__ import annotations

import pytest

from tfq_bench.host.plugins import discover
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import POLICIES, resolve
from tfq_bench.seeds import generator
from tfq_bench.testing.policies import bits_by_layer
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import FULL_PRECISION, Scheme

SHORT = {"preset": "quick", "iterations": 2, "tiar_iterations": 2}
"""Options that make a method quick, where it has them."""


@pytest.fixture(scope="module")
def table():
    """What is installed."""
    return discover()


def ignore(fraction, text):
    """Progress that nobody looks at."""


def methods(table):
    """Every quantizer that returns a state, with options that make it quick."""
    for name, found in table.alone("quantizer").items():
        provider = table.get("quantizer", f"{name}+rtn") if found.wraps else found
        if provider.external or provider.wbits == (FULL_PRECISION,):
            continue
        known = {option.name for option in provider.options}
        yield provider, {key: value for key, value in SHORT.items() if key in known}


def test_the_first_party_methods_are_installed(table):
    """Else the test below would show nothing."""
    found = {provider.name for provider, _ in methods(table)}
    assert {"rtn", "ptq4dm", "ptqd+rtn", "qdiffusion", "tfmq"} <= found


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_method_takes_every_shared_policy(table, policy):
    """It offers the policy, and each layer of its state has the policy's bits or exemption."""
    loaded, scheme = load_tiny(), Scheme(wbits=4, abits=8, policy=policy.name)
    expected = bits_by_layer(resolve(policy, loaded.topology, scheme))
    for provider, options in methods(table):
        assert policy.name in provider.policies, provider.name
        quantizer = table.create(provider, scheme=scheme, **options)
        needs = quantizer.calibration_needs(loaded, images=2)
        data = capture(loaded, needs, seed=1, batch=2, progress=ignore)
        state = quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
        found = {name: (layer.wbits, layer.abits) for name, layer in state.layers.items()}
        for name in state.exempt:
            found[name] = (16 if name in state.half else FULL_PRECISION, None)
        assert expected == found, provider.name
