"""The quantizer on the tiny model: contracts, splits, and what learning is for."""

from __future__ import annotations

import torch

from tfq_bench.api import Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import RoundToNearest, simulate
from tfq_bench.seeds import generator
from tfq_bench.testing.contracts import QuantizerContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_qdiffusion.quantizer import QDiffusion

W4A8 = Scheme(wbits=4, abits=8)


def ignore(fraction, text):
    """Progress that nobody looks at."""


class TestContract(QuantizerContract):
    schemes = (W4A8, Scheme(wbits=4, abits=8, policy="paper"), Scheme(wbits=3, abits=32))

    def make(self, scheme):
        return QDiffusion(scheme=scheme, preset="quick", samples=4, iterations=3)


def _state(loaded, quantizer, **extra):
    needs = quantizer.calibration_needs(loaded, images=16)
    data = capture(loaded, needs, seed=1, batch=16, progress=ignore)
    return quantizer.quantize(
        loaded, data, generator=generator(0, "test"), progress=ignore, **extra
    )


def test_shortcuts_have_parameters_per_half():
    """The split shortcut carries two activation tables and two sets of weight scales."""
    loaded = load_tiny()
    state = _state(loaded, QDiffusion(scheme=W4A8, preset="quick", iterations=2))
    (left, right) = state.layers["second.shortcut"].parts
    assert (0, 16, 16, 32) == (left.start, left.stop, right.start, right.stop)
    assert not torch.equal(left.scale, right.scale)
    assert not torch.equal(left.activation.scale, right.activation.scale)
    assert all(len(layer.parts) == 1 for n, layer in state.layers.items() if n != "second.shortcut")


def test_learned_rounding_is_closer_than_nearest():
    """At three bits the reconstructed network predicts closer to full precision than `rtn` does."""
    loaded = load_tiny()
    scheme = Scheme(wbits=3, abits=32)
    needs = QDiffusion(scheme=scheme).calibration_needs(loaded, images=16)
    data = capture(loaded, needs, seed=2, batch=16, progress=ignore)

    def error(state):
        lowered, total = simulate(loaded, state), 0.0
        for step in data.step.unique().tolist():
            rows = data.step == step
            lowered.step.set(step)
            with torch.no_grad():
                found, expected = (
                    loaded.model.predict(network, data.x[rows], data.timestep[rows], {})
                    for network in (lowered.network, loaded.network)
                )
            total += float((found - expected).square().mean())
        return total

    learned = _state(loaded, QDiffusion(scheme=scheme, preset="quick", iterations=200))
    nearest = _state(loaded, RoundToNearest(scheme=scheme, symmetric_weights=False))
    assert error(learned) < 0.7 * error(nearest)


def test_a_stopped_run_goes_on(tmp_path):
    """With some blocks in the checkpoint folder the state is the same, bit by bit."""
    loaded = load_tiny()
    quantizer = QDiffusion(scheme=W4A8, preset="quick", iterations=5)
    whole = _state(loaded, quantizer, checkpoint=tmp_path / "blocks")
    files = sorted((tmp_path / "blocks").iterdir())
    for file in files[3:]:
        file.unlink()
    again = _state(loaded, quantizer, checkpoint=tmp_path / "blocks")
    whole.save(tmp_path)
    first = (tmp_path / "tensors.safetensors").read_bytes()
    again.save(tmp_path)
    assert first == (tmp_path / "tensors.safetensors").read_bytes()
    assert len(files) == len(list((tmp_path / "blocks").iterdir()))
