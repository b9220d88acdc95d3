"""TIAR lowers its loss, and keeps what it learned in the fake-quantized network."""

from __future__ import annotations

import dataclasses

import torch

from tfq_bench.api import Scheme
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench_tfmq.presets import layer_plan
from tfq_bench_tfmq.tiar import learn_rounding


def ignore(fraction, text):
    """Progress that nobody looks at."""


def _loss(block, fake_quant):
    weights = {
        name: fake_quant.layer(name).pieces[0].effective_weight("hard")
        for name in block.layers
        if name in fake_quant.layers
    }
    exact, features = block.features(), block.features(weights)
    return sum(float((features[n] - exact[n]).square().sum(1).mean()) for n in exact)


def test_learned_rounding_beats_nearest(block, fake_quant):
    """The loss falls, and the report tells the losses of the network before and after."""
    nearest = _loss(block, fake_quant)
    report = learn_rounding(block, fake_quant, iterations=300, lr=3e-2, progress=ignore)
    assert abs(report.before - nearest) < 1e-5 * nearest
    assert abs(report.after - _loss(block, fake_quant)) < 1e-5 * nearest
    assert report.after < 0.6 * report.before


def test_weights_move_by_one_code_at_most(block, fake_quant):
    """Rounding goes up or down, nowhere else, and other layers are not touched."""
    before = {name: layer.pieces[0].codes.clone() for name, layer in fake_quant.layers.items()}
    learn_rounding(block, fake_quant, iterations=300, lr=3e-2, progress=ignore)
    for name, layer in fake_quant.layers.items():
        moved = (layer.pieces[0].codes.int() - before[name].int()).abs()
        assert int(moved.max()) <= 1
        assert bool(moved.any()) == (name in block.layers), name


def test_bad_learning_leaves_nearest_rounding(block, fake_quant):
    """A rate that ruins the rounding does not end worse than without learning."""
    nearest = _loss(block, fake_quant)
    report = learn_rounding(block, fake_quant, iterations=3, lr=1e3, progress=ignore)
    assert report.after <= report.before
    assert _loss(block, fake_quant) <= nearest


def test_float_layers_stay_and_count(loaded, block):
    """Under the code's policy the first layer is float; the others are learned around it."""
    plan = layer_plan(loaded, Scheme(wbits=3, abits=8, policy="code"))
    fake_quant = FakeQuantNetwork(loaded, plan, weights="mse")
    assert block.layers[0] not in fake_quant.layers
    report = learn_rounding(block, fake_quant, iterations=300, lr=3e-2, progress=ignore)
    assert report.after < report.before


def test_errors_in_front_are_made_up_for(block, fake_quant):
    """With what the layers really read, their outputs get closer to the exact ones."""
    shifted = block.table + 0.05 * torch.randn(
        block.table.shape, generator=torch.Generator().manual_seed(3)
    )
    read = dataclasses.replace(block, table=shifted)

    def error():
        weights = {
            name: fake_quant.layer(name).pieces[0].effective_weight("hard") for name in block.layers
        }
        found, exact = read.features(weights), block.features()
        return sum(float((found[n] - exact[n]).square().sum(1).mean()) for n in exact)

    nearest = error()
    report = learn_rounding(
        block, fake_quant, inputs=shifted, iterations=300, lr=3e-2, progress=ignore
    )
    assert abs(report.before - nearest) < 1e-5 * nearest
    assert abs(report.after - error()) < 1e-5 * nearest
    assert report.after < 0.6 * report.before


def test_nothing_is_random(loaded, block):
    """Two runs give the same codes; torch's generator stands still."""
    state = torch.random.get_rng_state()
    codes = []
    for _ in range(2):
        fake_quant = FakeQuantNetwork(loaded, layer_plan(loaded, Scheme(wbits=4, abits=8)))
        learn_rounding(block, fake_quant, iterations=50, lr=3e-2, progress=ignore)
        codes.append(
            torch.cat([fake_quant.layer(n).pieces[0].codes.flatten() for n in block.layers])
        )
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(state, torch.random.get_rng_state())
