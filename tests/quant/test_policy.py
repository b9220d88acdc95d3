"""Policies go by role, and say what they leave float and in how many bits."""

import pytest

from tfq_bench.border import Scheme
from tfq_bench.builtin import tfq_quantizers
from tfq_bench.errors import QuantizationError
from tfq_bench.quant.policy import (
    POLICIES,
    AttentionBits,
    Exempt,
    LayerBits,
    Policy,
    attention_bits,
    exemptions,
    find_policy,
    resolve,
)

TIME = ("time_mlp.0", "time_mlp.2", "first.time", "second.time")


def plan_of(loaded, name, wbits=4, abits=8):
    """The resolved bits of the tiny model under the policy called `name`."""
    scheme = Scheme(wbits=wbits, abits=abits, policy=name)
    return resolve(find_policy(name), loaded.topology, scheme)


def bits_of(plan):
    """(wbits, abits) by layer; the exempt ones have the bits they are kept in, and None."""
    return {
        name: (bits.bits, None) if isinstance(bits, Exempt) else (bits.wbits, bits.abits)
        for name, bits in plan.items()
    }


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("uniform", {"conv_in": (8, 8), "conv_out": (8, 8)}),
        (
            "uniform-temporal16",
            {"conv_in": (8, 8), "conv_out": (8, 8), **dict.fromkeys(TIME, (16, None))},
        ),
        ("ptq4dm", {"time_mlp.0": (8, 8), "time_mlp.2": (8, 8), "conv_out": (8, 8)}),
        ("qdiffusion", {}),
        ("tfmq-cvpr24", {"conv_in": (32, None), "conv_out": (32, None)}),
        (
            "tfmq-cvpr24-code",
            {
                "conv_in": (32, None),
                "conv_out": (32, None),
                "second.shortcut": (32, None),
                "time_mlp.0": (4, 32),
                "time_mlp.2": (4, 32),
            },
        ),
    ],
)
def test_presets_give_these_layers_other_bits_than_asked(loaded, name, others):
    """And all the rest W4A4."""
    expected = {layer.name: (4, 4) for layer in loaded.topology.layers} | others
    assert expected == bits_of(plan_of(loaded, name, 4, 4))


def test_exempt_layers_keep_reason_and_width(loaded):
    """`exemptions` gives a state's two fields, in execution order."""
    exempt, half = exemptions(plan_of(loaded, "uniform-temporal16"))
    assert {"first.time", "second.time", "time_mlp.0", "time_mlp.2"} == set(half) == set(exempt)
    assert all(exempt.values())
    assert exemptions(plan_of(loaded, "tfmq-cvpr24"))[1] == ()
    assert exemptions({"a": LayerBits(wbits=4, abits=8)}) == ({}, ())


def test_half_needs_an_exemption():
    """A role cannot be quantized and kept in float16."""
    with pytest.raises(QuantizationError, match="must be exempt"):
        Policy(name="odd", half=frozenset({"conv"}))


def test_attention_is_quantized_where_policy_and_scheme_say_so():
    """Weight-only schemes leave it float, and so does `uniform`."""
    full, low = Scheme(wbits=4), Scheme(wbits=4, abits=8)
    assert attention_bits(find_policy("uniform"), low) is None
    assert attention_bits(find_policy("qdiffusion"), full) is None
    assert AttentionBits(operands=8, softmax=8) == attention_bits(find_policy("qdiffusion"), low)


def test_listed_and_implemented_policies_of_rtn_are_the_same():
    """The listing cannot import this module, so its names are held against it here."""
    (provider,) = [entry for entry in tfq_quantizers() if entry.name == "rtn"]
    assert tuple(policy.name for policy in POLICIES) == provider.policies
    with pytest.raises(QuantizationError, match="did you mean 'tfmq-cvpr24'"):
        find_policy("tfmq-cvpr")
