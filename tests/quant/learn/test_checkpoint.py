"""Finished blocks on disk: used by the same work only, and errors in words."""

import pytest
import torch

from tfq_bench.errors import QuantizationError, StoreError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import UNIFORM, resolve
from tfq_bench.quant.learn.block import Reconstruction
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.learn.reconstruct import reconstruct
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationData, CalibrationNeeds, Scheme

SHORT = Reconstruction(iterations=6, batch=4, lr=0.1, capture_batch=5)


@pytest.fixture(scope="module")
def loaded():
    """The tiny model."""
    return load_tiny()


@pytest.fixture(scope="module")
def data(loaded):
    """Four images at each of three steps."""
    needs = CalibrationNeeds(
        samples=tuple((step, image) for step in range(3) for image in range(4))
    )
    return capture(loaded, needs, seed=1, batch=4, progress=lambda *_: None)


def _learn(loaded, data, folder=None, progress=lambda *_: None):
    """Codes of all layers, one after the other."""
    plan = resolve(UNIFORM, loaded.topology, Scheme(wbits=3, abits=32))
    fake_quant = FakeQuantNetwork(loaded, plan)
    reconstruct(
        fake_quant,
        data,
        options=SHORT,
        generator=generator(0, "test"),
        progress=progress,
        checkpoint=folder,
    )
    return torch.cat([p.codes.flatten() for la in fake_quant.layers.values() for p in la.pieces])


def _with_x(data, x):
    return CalibrationData(x=x, timestep=data.timestep, step=data.step, image=data.image)


@pytest.mark.parametrize("change", ["order of samples", "timesteps"])
def test_work_on_other_data_takes_nothing_over(loaded, data, tmp_path, change):
    """Even data with the same values in another order are other data."""
    other = _with_x(data, data.x.flip(0))
    if change == "timesteps":
        other = CalibrationData(
            x=data.x, timestep=data.timestep + 1, step=data.step, image=data.image
        )
    _learn(loaded, other, tmp_path / "kept")
    assert torch.equal(_learn(loaded, data), _learn(loaded, data, tmp_path / "kept"))


def test_finished_blocks_are_not_learned_again(loaded, data, tmp_path):
    """Blocks found in the checkpoint are told as such and not learned again."""
    _learn(loaded, data, tmp_path / "kept")
    told = []
    _learn(loaded, data, tmp_path / "kept", lambda _, text: told.append(text))
    assert all("as kept in the checkpoint" in text for text in told)


def test_progress_names_block_loss_and_time_left(loaded, data):
    """Fractions rise to 1; each finished block tells what it brought."""
    told = []
    _learn(loaded, data, None, lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    assert sorted(shares) == shares
    assert pytest.approx(1.0) == shares[-1]
    ends = [text for _, text in told if "loss" in text]
    names = [block.name for block in loaded.topology.blocks]
    for number, (name, text) in enumerate(zip(names, ends, strict=True), start=1):
        assert text.startswith(f"block {number}/{len(names)} {name} (weights), loss ")
        assert text.endswith("s left")


def test_divergence_is_an_error_in_words(loaded, data):
    """NaN never becomes codes."""
    with pytest.raises(QuantizationError, match=r"diverged.*lower the learning rate"):
        _learn(loaded, _with_x(data, data.x * float("nan")))


def test_unwritable_checkpoint_is_an_error_in_words(loaded, data, tmp_path):
    """A folder that cannot be made is named."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        _learn(loaded, data, tmp_path / "file" / "folder")
