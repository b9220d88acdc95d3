"""Block reconstruction: better than nearest rounding, resumable, bounded in memory."""

from __future__ import annotations

import shutil

import pytest
import torch

from tfq_bench.errors import CalibrationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import UNIFORM, ActivationQParams, resolve
from tfq_bench.quant.learn.activation_cache import Replay
from tfq_bench.quant.learn.block import Reconstruction
from tfq_bench.quant.learn.block_data import Replays, capture_block
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.learn.reconstruct import reconstruct
from tfq_bench.quant.state.storage import save_state
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationNeeds, Scheme

W3 = Scheme(wbits=3, abits=32)
QUICK = Reconstruction(iterations=60, batch=8, lr=3e-2)


def ignore(fraction, text):
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def loaded():
    """The tiny model."""
    return load_tiny()


@pytest.fixture(scope="module")
def data(loaded):
    """Eight images at each of the four steps."""
    needs = CalibrationNeeds(
        samples=tuple((step, image) for step in range(4) for image in range(8))
    )
    return capture(loaded, needs, seed=1, batch=8, progress=ignore)


def _run(loaded, data, *, options=QUICK, tables=0, **extra):
    fake_quant = FakeQuantNetwork(loaded, resolve(UNIFORM, loaded.topology, W3), split=True)
    if tables:
        for layer in fake_quant.layers.values():
            table = ActivationQParams(
                bits=4,
                scale=torch.full((tables,), 0.1),
                zero_point=torch.full((tables,), 8, dtype=torch.int32),
            )
            layer.set_tables([table] * len(layer.pieces))
    reports = reconstruct(
        fake_quant, data, options=options, generator=generator(0, "test"), progress=ignore, **extra
    )
    return fake_quant, reports


def _bytes(fake_quant, folder):
    save_state(fake_quant.freeze("test", W3), folder)
    return (folder / "tensors-0001.safetensors").read_bytes()


def test_learned_rounding_beats_nearest(loaded, data):
    """Every block that has an error ends with a smaller one; blocks come in execution order."""
    _, reports = _run(loaded, data, options=Reconstruction(iterations=300, batch=8, lr=1e-2))
    assert [block.name for block in loaded.topology.blocks] == [report.block for report in reports]
    assert all(report.after < report.before for report in reports)


def test_learned_steps_lower_the_error(loaded, data):
    """With steps far off, the second phase brings every block closer."""
    options = Reconstruction(iterations=0, activation_iterations=100, batch=8, activation_lr=3e-2)
    fake_quant, reports = _run(loaded, data, options=options, tables=1)
    assert {"activations"} == {report.phase for report in reports}
    assert sum(r.after for r in reports) < 0.8 * sum(r.before for r in reports)
    scales = [
        p.activation.table().scale for layer in fake_quant.layers.values() for p in layer.pieces
    ]
    assert any(abs(float(scale) - 0.1) > 0.01 for scale in scales)


def test_steps_of_the_sampler_learn_apart(loaded, data):
    """With a table per step, steps get different scales from the same start."""
    options = Reconstruction(iterations=0, activation_iterations=40, batch=8, activation_lr=3e-2)
    fake_quant, _ = _run(loaded, data, options=options, tables=4)
    scales = [
        p.activation.table().scale for layer in fake_quant.layers.values() for p in layer.pieces
    ]
    assert any(len(scale.unique()) == 4 for scale in scales)


def test_skipped_layers_keep_their_codes(loaded, data):
    """Layers that are learned elsewhere are not touched."""
    skip = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    untouched = FakeQuantNetwork(loaded, resolve(UNIFORM, loaded.topology, W3), split=True)
    fake_quant, _ = _run(loaded, data, skip=skip)
    same = {
        name
        for name, layer in fake_quant.layers.items()
        if all(
            torch.equal(a.codes, b.codes)
            for a, b in zip(layer.pieces, untouched.layer(name).pieces, strict=True)
        )
    }
    assert skip <= same
    assert len(same) < len(fake_quant.layers)


@pytest.fixture(scope="module")
def plain(loaded, data, tmp_path_factory):
    """The bytes of a run that keeps nothing."""
    return _bytes(_run(loaded, data)[0], tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def finished(loaded, data, plain, tmp_path_factory):
    """What a whole run keeps."""
    folder = tmp_path_factory.mktemp("finished") / "blocks"
    assert plain == _bytes(_run(loaded, data, checkpoint=folder)[0], folder.parent)
    return folder


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_a_stopped_run_goes_on_to_the_same_bytes(loaded, data, plain, finished, tmp_path, kept):
    """Whatever was finished is used, a file that was cut off is not, and nothing else changes."""
    folder = shutil.copytree(finished, tmp_path / "blocks")
    files = sorted(folder.iterdir())
    for file in files[kept:]:
        file.unlink()
    files[kept].write_bytes(b"cut off")
    assert plain == _bytes(_run(loaded, data, checkpoint=folder)[0], tmp_path)


def test_a_checkpoint_of_another_call_is_ignored(loaded, data, plain, tmp_path):
    """Other options, another result: nothing is taken over."""
    other = Reconstruction(iterations=20, batch=8, lr=3e-2)
    _run(loaded, data, checkpoint=tmp_path / "blocks", options=other)
    assert plain == _bytes(_run(loaded, data, checkpoint=tmp_path / "blocks")[0], tmp_path)


def test_what_exceeds_the_limit_goes_to_disk(loaded, data, plain, tmp_path):
    """A small memory limit changes where inputs lie, not the result."""
    tight = Reconstruction(iterations=60, batch=8, lr=3e-2, memory_limit=1000)
    assert plain == _bytes(_run(loaded, data, options=tight)[0], tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("kept", [0, 2**30])
def test_captured_inputs_and_targets_are_the_block_s_own(loaded, data, kept):
    """Float fake-quantized network: the block on its captured inputs gives its captured targets."""
    fake_quant = FakeQuantNetwork(loaded, resolve(UNIFORM, loaded.topology, W3))
    fake_quant.set(weights="float")
    names = [block.name for block in loaded.topology.blocks]
    replays = Replays(
        fake_quant=Replay(fake_quant.network, names, count=len(data.x), limit=kept),
        full=Replay(loaded.network, names, count=len(data.x), limit=kept),
    )
    for block in loaded.topology.blocks:
        with capture_block(
            fake_quant, data, block.name, limit=2**30, batch=5, replays=replays
        ) as captured:
            assert len(data.x) == len(captured.targets)
            args, kwargs = captured.arguments(captured.inputs)
            found = fake_quant.network.get_submodule(block.name)(*args, **kwargs)
            torch.testing.assert_close(captured.targets, found, atol=1e-5, rtol=1e-5)


def test_no_samples_is_an_error(loaded, data):
    """Nothing can be learned from nothing."""
    empty = capture(loaded, CalibrationNeeds(), seed=1, batch=8, progress=ignore)
    with pytest.raises(CalibrationError, match="found no samples"):
        _run(loaded, empty)
