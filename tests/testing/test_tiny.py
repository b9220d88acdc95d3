"""The tiny model is what the toolkit traces, and its stochastic sampler uses its noise."""

import torch

from tfq_bench.quant.topology import trace_topology
from tfq_bench.testing.tiny import TinyModel, load_tiny


def test_hand_written_topology_equals_the_traced_one():
    """Order, kinds, shapes, work and splits agree with what forward hooks see."""
    loaded = load_tiny()
    written = loaded.topology
    traced = trace_topology(
        loaded.network,
        lambda network: network(torch.zeros(1, 3, 8, 8), torch.zeros(1)),
        lambda name, module: written.layer(name).role,
        lambda name: written.layer(name).block,
        splits={layer.name: layer.split for layer in written.layers if layer.split},
    )
    assert written == traced


def test_other_weights_are_another_model():
    """The digest follows the weights."""
    assert TinyModel(weights_seed=1).digest != TinyModel().digest


def test_stochastic_sampler_uses_its_noise():
    """Two draws of noise give two states; the last step adds none."""
    sampler = load_tiny(sampler="ddim-stochastic").sampler
    x = torch.zeros(1, 3, 8, 8)
    last = len(sampler.timesteps) - 1
    assert not torch.equal(
        sampler.step(x, x, 0, torch.zeros_like(x)), sampler.step(x, x, 0, torch.ones_like(x))
    )
    assert torch.equal(
        sampler.step(x, x, last, torch.zeros_like(x)), sampler.step(x, x, last, torch.ones_like(x))
    )
