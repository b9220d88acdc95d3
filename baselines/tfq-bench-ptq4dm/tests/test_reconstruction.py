"""Learned rounding: the same grids, other codes, a smaller error, and blocks that are kept."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import QuantizationError, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import simulate
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_ptq4dm.quantizer import Ptq4dm

W3A32 = Scheme(wbits=3, abits=32)


def ignore(fraction, text):
    """Progress that nobody looks at."""


def _make(**options):
    return Ptq4dm(scheme=W3A32, samples=32, lr=3e-2, **options)


def _quantize(loaded, quantizer, checkpoint=None, progress=ignore):
    needs = _make(iterations=1).calibration_needs(loaded, images=8)
    data = capture(loaded, needs, seed=1, batch=8, progress=ignore)
    state = quantizer.quantize(
        loaded, data, generator=generator(0, "test"), progress=progress, checkpoint=checkpoint
    )
    return data, state


@torch.no_grad()
def _prediction_error(loaded, data, state):
    network = simulate(loaded, state).network
    exact = loaded.model.predict(loaded.network, data.x, data.timestep, {})
    return float((loaded.model.predict(network, data.x, data.timestep, {}) - exact).square().mean())


def test_learned_rounding_keeps_the_grid_and_lowers_the_error():
    """Scales and zero points are those of nearest rounding; predictions come closer."""
    loaded = load_tiny()
    data, nearest = _quantize(loaded, _make())
    _, learned = _quantize(loaded, _make(iterations=40))
    moved = 0
    for name, layer in learned.layers.items():
        (before,), (after,) = nearest.layers[name].parts, layer.parts
        assert torch.equal(before.scale, after.scale)
        assert torch.equal(before.zero_point, after.zero_point)
        moved += int((before.weight != after.weight).sum())
    assert moved
    error = [_prediction_error(loaded, data, state) for state in (nearest, learned)]
    assert error[1] < 0.75 * error[0]


def test_zero_iterations_ask_for_no_data_where_activations_are_float():
    """Only learning needs samples then."""
    loaded = load_tiny()
    assert () == _make().calibration_needs(loaded, images=8).samples
    assert _make(iterations=1).calibration_needs(loaded, images=8).samples


def test_finished_blocks_are_taken_from_the_checkpoint(tmp_path):
    """The second call learns nothing and gives the same codes."""
    loaded = load_tiny()
    texts = []
    _, first = _quantize(loaded, _make(iterations=3), tmp_path)
    _, second = _quantize(loaded, _make(iterations=3), tmp_path, lambda _, text: texts.append(text))
    kept = [text for text in texts if "as kept in the checkpoint" in text]
    assert len(loaded.topology.blocks) == len(kept)
    for name, layer in first.layers.items():
        assert torch.equal(layer.parts[0].weight, second.layers[name].parts[0].weight)


def test_a_network_of_16_bits_can_be_rounded_but_not_learned():
    """The message of the toolkit says what to do."""
    loaded = load_tiny()
    loaded.network.to(torch.bfloat16)
    quantizer = Ptq4dm(scheme=W3A32)
    needs = quantizer.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=1, batch=2, progress=ignore)
    assert quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore).layers
    with pytest.raises(QuantizationError, match="float32"):
        _make(iterations=1).quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
