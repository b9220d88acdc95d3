"""Per-step parameters fit each step at least as tightly as one range for all."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.quant import fake_quantize
from tfq_bench_tfmq.fsc import calibrate_inputs, with_tables


@pytest.fixture
def weights(block, fake_quant):
    """Nearest-rounded weights of the block."""
    return {
        name: fake_quant.layer(name).pieces[0].effective_weight("hard") for name in block.layers
    }


def _inputs(block, weights):
    seen = {}
    block.features(weights, lambda name, x: seen.setdefault(name, x))
    return seen


def test_every_input_has_an_entry_per_step(block, weights):
    """Tables have T entries, in contrast to static ones; 32 bits leave an input float."""
    bits = dict.fromkeys(block.layers, 8) | {block.layers[0]: 32}
    tables = calibrate_inputs(block, weights, bits, per_step=True)
    assert set(block.layers) - {block.layers[0]} == set(tables)
    assert {6} == {len(table.scale) for table in tables.values()}
    static = calibrate_inputs(block, weights, bits, per_step=False)
    assert {1} == {len(table.scale) for table in static.values()}


def test_steps_are_never_coarser_than_static(block, weights):
    """s_t <= s for the first input, whose values both see; its mean error is lower."""
    name = block.layers[0]
    x = _inputs(block, weights)[name]
    fine = calibrate_inputs(block, weights, {name: 4}, per_step=True)[name]
    coarse = calibrate_inputs(block, weights, {name: 4}, per_step=False)[name]
    assert bool((fine.scale <= coarse.scale).all())
    errors = [
        float((fake_quantize(x, t.scale[:, None], t.zero_point[:, None], 4) - x).square().mean())
        for t in (fine, coarse)
    ]
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_nothing_is_clipped(block, weights, bits):
    """The largest error of an input at step t is half of s_t, plus the zero point's rounding."""
    tables = calibrate_inputs(block, weights, dict.fromkeys(block.layers, bits), per_step=True)
    quantize = with_tables(tables)

    def check(name, x):
        quantized = quantize(name, x)
        worst = (quantized - x).abs().amax(dim=1)
        assert bool((worst <= 1.01 * tables[name].scale).all()), name
        return quantized

    block.features(weights, check)


def test_fsc_lowers_the_features_error(block, weights):
    """Summed over steps, the features are closer to those of float inputs than with one range."""
    bits = dict.fromkeys(block.layers, 5)
    target = block.features(weights)

    def error(per_step):
        tables = calibrate_inputs(block, weights, bits, per_step=per_step)
        features = block.features(weights, with_tables(tables))
        return sum(float((features[n] - target[n]).square().sum()) for n in target)

    assert error(True) < error(False)


def test_without_tables_the_block_is_exact(block):
    """No table, no quantization."""
    features = block.features(None, with_tables({}))
    assert all(torch.equal(rows, features[n]) for n, rows in block.features().items())
