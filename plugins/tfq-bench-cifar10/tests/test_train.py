"""Training in sessions, on networks of each kind that are small enough to be trained often."""

import dataclasses
import hashlib
import math

import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel

from tfq_bench_cifar10 import train as training
from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint
from tfq_bench_cifar10.network import NETWORKS, TOKENS_SHAPE

SMALL = {"sample_size": 32, "in_channels": 3, "out_channels": 3, "norm_num_groups": 4}
LAYERS = {"block_out_channels": (8, 8), "layers_per_block": 1}


def small_unet(dropout):
    """In place of `build_unet`."""
    stages = {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }
    return UNet2DModel(**SMALL, **LAYERS, **stages, dropout=dropout, attention_head_dim=8)


def small_conditional(dropout):
    """In place of `build_conditional`."""
    return UNet2DConditionModel(
        **SMALL,
        **LAYERS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TOKENS_SHAPE[-1],
        attention_head_dim=1,
        dropout=dropout,
    )


def small_dit(dropout):
    """In place of `build_dit`."""
    return DiTTransformer2DModel(
        num_attention_heads=1,
        attention_head_dim=8,
        in_channels=3,
        num_layers=1,
        patch_size=8,
        num_embeds_ada_norm=10,
        dropout=dropout,
    )


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    builds = {"unet": small_unet, "conditional": small_conditional, "dit": small_dit}
    for name, build in builds.items():
        small = dataclasses.replace(NETWORKS[name], build=build)
        monkeypatch.setitem(training.NETWORKS, name, small)


@pytest.fixture
def checkpoint(data_file, tmp_path):
    """The folder of two steps of the small U-Net."""
    out = tmp_path / "two-steps"
    session(data_file, out, 2)
    return out


def session(data_file, out, steps, *more):
    """Runs one session of a training of `steps` on the CPU."""
    words = ["--data", data_file, "--out", out, "--steps", steps, "--batch", 4, "--device", "cpu"]
    return training.train(training.arguments().parse_args([*map(str, words), *more]))


def test_a_session_changes_the_weights_and_tells_its_facts(checkpoint, data_file):
    """Two steps move the weights; steps, images and data are told."""
    groups, state = load_checkpoint(checkpoint)
    torch.manual_seed(0)
    fresh = dict(small_unet(0.0).named_parameters())
    assert not torch.equal(fresh["conv_in.weight"], groups["model"]["conv_in.weight"])
    assert (state["step"], state["images"], state["sessions"]) == (2, 8, 1)
    assert hashlib.sha256(data_file.read_bytes()).hexdigest() == state["facts"]["data_sha256"]


@pytest.mark.parametrize("more", [[], ["--dropout", "0.3"]], ids=["plain", "dropout"])
def test_a_training_in_sessions_is_the_uncut_one_bit_by_bit(network, data_file, tmp_path, more):
    """Stopped after each step, four steps end in the tensors and random states of one session."""
    words = ["--network", network.name, "--loss", "min-snr", *more]
    session(data_file, tmp_path / "whole", 4, *words)
    session(data_file, tmp_path / "cut", 4, *words, "--minutes", "0")
    for _ in range(2):
        torch.rand(3)  # what happens in between must not matter
        session(data_file, tmp_path / "cut", 4, *words, "--minutes", "0", "--resume")
    session(data_file, tmp_path / "cut", 4, *words, "--resume")
    whole, whole_state = load_checkpoint(tmp_path / "whole")
    cut, cut_state = load_checkpoint(tmp_path / "cut")
    assert (4, 1, 4) == (cut_state["step"], whole_state["sessions"], cut_state["sessions"])
    assert whole.keys() == cut.keys()
    for group, tensors in whole.items():
        for name, value in tensors.items():
            assert torch.equal(value, cut[group][name]), (group, name)


def test_another_network_does_not_go_on(checkpoint, data_file, capsys):
    """The checkpoint says of which network it is."""
    words = ["--data", str(data_file), "--out", str(checkpoint), "--steps", "3", "--resume"]
    with pytest.raises(SystemExit) as stop:
        training.main([*words, "--network", "dit", "--device", "cpu"])
    assert stop.value.code == 2
    assert "of the network dit, found one of unet. Give the same --network" in (
        capsys.readouterr().err
    )


def test_the_provenance_tells_of_dropped_labels_where_there_are_labels(data_file, tmp_path):
    """A network without classes has no label dropout to tell."""
    found = {
        name: session(data_file, tmp_path / name, 1, "--network", name).facts["label_dropout"]
        for name in NETWORKS
    }
    assert found == {"unet": None, "conditional": 0.1, "dit": 0.1}


def test_a_resumed_session_goes_on(checkpoint, data_file, tmp_path):
    """Steps, images and the loss curve continue, and only the newest files stay."""
    out = tmp_path / "run"
    groups, state = load_checkpoint(checkpoint)
    save_checkpoint(out, groups, state)
    progress = session(data_file, out, 3, "--resume", "--loss", "min-snr")
    assert (progress.step, progress.images, progress.sessions) == (3, 12, 2)
    assert [step for step, _ in progress.loss_curve] == [2, 3]
    assert all(math.isfinite(loss) for _, loss in progress.loss_curve)
    assert {"3"} == {path.name.split("-")[1] for path in out.glob("*.safetensors")}


def test_a_finished_training_resumes_to_itself(checkpoint, data_file, tmp_path):
    """Resuming with no budget left stores the same weights and second moments again."""
    groups, state = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path, groups, state)
    session(data_file, tmp_path, 2, "--resume")
    again, _ = load_checkpoint(tmp_path)
    assert groups.keys() == again.keys()
    for group, tensors in groups.items():
        for name, value in tensors.items():
            assert torch.equal(value, again[group][name]), (group, name)


def test_other_data_is_refused_without_a_traceback(checkpoint, data_file, tmp_path, capsys):
    """A checkpoint of other data ends the command with status 2 and a message."""
    groups, state = load_checkpoint(checkpoint)
    save_checkpoint(
        tmp_path, groups, {**state, "facts": {**state["facts"], "data_sha256": "0" * 64}}
    )
    words = ["--data", str(data_file), "--out", str(tmp_path), "--steps", "3", "--resume"]
    with pytest.raises(SystemExit) as stop:
        training.main([*words, "--device", "cpu"])
    assert stop.value.code == 2
    assert "expected a checkpoint of the data" in capsys.readouterr().err


def test_the_learning_rate_warms_up_and_falls_to_zero():
    """The rate rises linearly over 500 steps and follows a half cosine over the budget."""
    assert pytest.approx(0.002) == training._learning_rate(1.0, 0, 0.0)
    assert pytest.approx(1.0) == training._learning_rate(1.0, 499, 0.0)
    assert pytest.approx(0.5) == training._learning_rate(1.0, 5000, 0.5)
    assert pytest.approx(0.0) == training._learning_rate(1.0, 9999, 1.0)


def test_a_diverged_loss_stops_before_it_is_saved():
    """NaN is an error that says what to do."""
    with pytest.raises(ValueError, match="lower --lr"):
        training._check_finite(math.nan, 200)
