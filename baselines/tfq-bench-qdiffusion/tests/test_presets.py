"""Layer policies: what each layer of the tiny model gets, written down."""

from __future__ import annotations

import pytest

from tfq_bench.api import Scheme
from tfq_bench.quant import AttentionBits, Exempt, attention_bits, find_policy, resolve
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_qdiffusion.presets import POLICIES

TIME = ("time_mlp.0", "time_mlp.2", "first.time", "second.time")


@pytest.mark.parametrize(
    ("name", "others", "attention"),
    [
        ("uniform", {"conv_in": (8, 8), "conv_out": (8, 8)}, None),
        (
            "uniform-temporal16",
            {"conv_in": (8, 8), "conv_out": (8, 8), **dict.fromkeys(TIME, (16, None))},
            None,
        ),
        ("uniform-io16", {"conv_in": (16, None), "conv_out": (16, None)}, None),
        ("paper", {}, AttentionBits(operands=8, softmax=8)),
    ],
)
def test_policies_give_these_layers_other_bits_than_asked(name, others, attention):
    """Weights and inputs, or the width of what stays float and None; all the rest is W4A6."""
    topology, scheme = load_tiny().topology, Scheme(wbits=4, abits=6, policy=name)
    policy = find_policy(name, POLICIES)
    found = {
        layer: (bits.bits, None) if isinstance(bits, Exempt) else (bits.wbits, bits.abits)
        for layer, bits in resolve(policy, topology, scheme).items()
    }
    assert {layer.name: (4, 6) for layer in topology.layers} | others == found
    assert attention == attention_bits(policy, scheme)
