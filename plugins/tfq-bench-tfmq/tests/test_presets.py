"""Layer policies as the paper and the released code have them."""

from __future__ import annotations

import pytest

from tfq_bench.api import QuantizationError, Scheme
from tfq_bench.quant import AttentionBits, Exempt, attention_bits, find_policy, trace_topology
from tfq_bench.testing.policies import bits_by_layer
from tfq_bench_tfmq.presets import POLICIES, layer_plan

W4A8 = {"wbits": 4, "abits": 8}
FLOAT_ENDS = {"conv_in": (32, None), "conv_out": (32, None)}
ATTENTION = AttentionBits(operands=8, softmax=8)


@pytest.mark.parametrize(
    ("name", "others", "attention"),
    [
        ("paper", FLOAT_ENDS, ATTENTION),
        (
            "code",
            {
                **FLOAT_ENDS,
                "time_mlp.0": (32, None),
                "time_mlp.2": (4, 32),
                "first.conv1": (4, 32),
                "second.shortcut": (32, None),
            },
            ATTENTION,
        ),
    ],
)
def test_policies_give_these_layers_other_bits_than_asked(loaded, name, others, attention):
    """Weights and inputs, or the width of what stays float and None; all the rest is W4A6."""
    scheme = Scheme(wbits=4, abits=6, policy=name)
    expected = {layer.name: (4, 6) for layer in loaded.topology.layers} | others
    assert expected == bits_by_layer(layer_plan(loaded, scheme))
    assert attention == attention_bits(find_policy(name, POLICIES), scheme)


def _float(plan):
    return {name for name, bits in plan.items() if isinstance(bits, Exempt)}


def test_paper_keeps_both_ends_float(loaded):
    """Input and output layer, nothing else."""
    plan = layer_plan(loaded, Scheme(**W4A8, policy="paper"))
    assert {"conv_in", "conv_out"} == _float(plan)


def test_code_has_its_exemptions(loaded):
    """Weights of the second time layer have the asked bits, its input and the first conv's none."""
    plan = layer_plan(loaded, Scheme(**W4A8, policy="code"))
    assert {"conv_in", "conv_out", "time_mlp.0", "second.shortcut"} == _float(plan)
    inputs = {name for name, bits in plan.items() if name not in _float(plan) and bits.abits == 32}
    assert {"time_mlp.2", "first.conv1"} == inputs
    assert 4 == plan["time_mlp.2"].wbits


def test_code_keeps_downsampling_float_but_not_upsampling(loaded):
    """Told apart by stride, since roles do not."""
    import torch
    from torch import nn

    from tfq_bench.api import LoadedModel

    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 1)
    )
    topology = trace_topology(
        network, lambda net: net(torch.zeros(1, 3, 8, 8)), lambda *_: "resample", lambda name: name
    )
    model = LoadedModel(
        model=loaded.model,
        network=network,
        topology=topology,
        sampler=loaded.sampler,
        device="cpu",
    )
    assert {"0"} == _float(layer_plan(model, Scheme(**W4A8, policy="code")))


def test_unknown_policies_are_refused(loaded):
    """With the nearest name."""
    with pytest.raises(QuantizationError, match=r"unknown layer policy 'papper'.*paper"):
        layer_plan(loaded, Scheme(**W4A8, policy="papper"))
