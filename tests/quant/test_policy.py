"""Policies go by role, and say what they leave float and in how many bits."""

from pathlib import Path

import pytest

import tfq_bench
from tfq_bench.errors import QuantizationError
from tfq_bench.host.builtin import tfq_quantizers
from tfq_bench.quant.policy import (
    POLICIES,
    AttentionBits,
    LayerBits,
    Policy,
    attention_bits,
    exemptions,
    find_policy,
    resolve,
)
from tfq_bench.testing.policies import bits_by_layer
from tfq_bench.types import Scheme

TIME = ("time_mlp.0", "time_mlp.2", "first.time", "second.time")


def plan_of(loaded, name, wbits=4, abits=8):
    """The resolved bits of the tiny model under the policy called `name`."""
    scheme = Scheme(wbits=wbits, abits=abits, policy=name)
    return resolve(find_policy(name), loaded.topology, scheme)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("uniform", {"conv_in": (8, 8), "conv_out": (8, 8)}),
        (
            "uniform-temporal16",
            {"conv_in": (8, 8), "conv_out": (8, 8), **dict.fromkeys(TIME, (16, None))},
        ),
        ("uniform-io16", {"conv_in": (16, None), "conv_out": (16, None)}),
    ],
)
def test_presets_give_these_layers_other_bits_than_asked(loaded, name, others):
    """And all the rest W4A4."""
    expected = {layer.name: (4, 4) for layer in loaded.topology.layers} | others
    assert expected == bits_by_layer(plan_of(loaded, name, 4, 4))


def test_exempt_layers_keep_reason_and_width(loaded):
    """`exemptions` gives a state's two fields, in execution order."""
    exempt, half = exemptions(plan_of(loaded, "uniform-temporal16"))
    assert {"first.time", "second.time", "time_mlp.0", "time_mlp.2"} == set(half) == set(exempt)
    assert all(exempt.values())
    float32 = Policy(name="ends", exempt={"input": "as published"})
    plan = resolve(float32, loaded.topology, Scheme(wbits=4, abits=8))
    assert exemptions(plan) == ({"conv_in": "as published"}, ())
    assert exemptions({"a": LayerBits(wbits=4, abits=8)}) == ({}, ())


def test_half_needs_an_exemption():
    """A role cannot be quantized and kept in float16."""
    with pytest.raises(QuantizationError, match="must be exempt"):
        Policy(name="odd", half=frozenset({"conv"}))


def test_attention_is_quantized_where_policy_and_scheme_say_so():
    """Weight-only schemes leave it float, and so do the host's policies."""
    full, low = Scheme(wbits=4), Scheme(wbits=4, abits=8)
    bits = AttentionBits(operands=8, softmax=8)
    attentive = Policy(name="attentive", attention=bits)
    assert {None} == {attention_bits(policy, low) for policy in POLICIES}
    assert attention_bits(attentive, full) is None
    assert bits == attention_bits(attentive, low)


def test_listed_and_implemented_policies_of_rtn_are_the_same():
    """The listing cannot import this module, so its names are held against it here."""
    (provider,) = [entry for entry in tfq_quantizers() if entry.name == "rtn"]
    assert tuple(policy.name for policy in POLICIES) == provider.policies
    with pytest.raises(QuantizationError, match="did you mean 'uniform-io16'"):
        find_policy("uniform-io")


@pytest.mark.parametrize("name", ["tfmq", "ptq4dm", "qdiffusion"])
def test_host_names_no_method_of_a_plugin(name):
    """Neither in code nor in strings, which import contracts cannot see; suites may name any."""
    host = Path(tfq_bench.__file__).parent
    naming = [
        path.relative_to(host)
        for path in host.rglob("*")
        if path.suffix in (".py", ".json") and name in path.read_text(encoding="utf-8")
    ]
    assert [] == naming
