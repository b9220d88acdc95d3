"""The paper's layer policy: what each layer of the tiny model gets, written down."""

from __future__ import annotations

from tfq_bench.api import Scheme
from tfq_bench.quant import attention_bits, resolve
from tfq_bench.testing.policies import bits_by_layer
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_ptq4dm.presets import PAPER


def test_the_paper_gives_these_layers_other_bits_than_asked():
    """Weights and inputs; all the rest is W4A6. The host tests its own policies."""
    topology, scheme = load_tiny().topology, Scheme(wbits=4, abits=6, policy="paper")
    expected = {layer.name: (4, 6) for layer in topology.layers} | dict.fromkeys(
        ("time_mlp.0", "time_mlp.2", "conv_out"), (8, 8)
    )
    assert expected == bits_by_layer(resolve(PAPER, topology, scheme))
    assert attention_bits(PAPER, scheme) is None
