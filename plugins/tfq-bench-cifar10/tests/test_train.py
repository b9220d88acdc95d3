"""Training in sessions."""

import hashlib
import math

import pytest
import torch

from tfq_bench_cifar10 import train as training
from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint
from tfq_bench_cifar10.network import alphas_cumprod, build_unet


def session(data_file, out, steps, *more):
    """Runs one session up to `steps` on the CPU."""
    words = ["--data", data_file, "--out", out, "--steps", steps, "--batch", 4, "--device", "cpu"]
    return training.train(training.arguments().parse_args([*map(str, words), *more]))


def test_a_session_changes_the_weights_and_fits_its_files(checkpoint, data_file):
    """Two steps move the weights, and the checkpoint stays under 60 MB in files under 16 MiB."""
    groups, state = load_checkpoint(checkpoint)
    torch.manual_seed(0)
    fresh = dict(build_unet().named_parameters())
    assert not torch.equal(fresh["conv_in.weight"], groups["model"]["conv_in.weight"])
    assert (state["step"], state["images"], state["sessions"]) == (2, 8, 1)
    assert hashlib.sha256(data_file.read_bytes()).hexdigest() == state["facts"]["data_sha256"]
    sizes = [path.stat().st_size for path in checkpoint.iterdir()]
    assert sum(sizes) < 60_000_000
    assert max(sizes) < 16 * 2**20
    assert len(sizes) <= 8


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
    assert "expected a checkpoint trained on this data" in capsys.readouterr().err


def test_the_learning_rate_warms_up_and_falls_to_zero():
    """The rate rises linearly over 500 steps and follows a half cosine over the budget."""
    assert pytest.approx(0.002) == training._learning_rate(1.0, 0, 0.0)
    assert pytest.approx(1.0) == training._learning_rate(1.0, 499, 0.0)
    assert pytest.approx(0.5) == training._learning_rate(1.0, 5000, 0.5)
    assert pytest.approx(0.0) == training._learning_rate(1.0, 9999, 1.0)


def test_min_snr_lowers_only_the_weight_of_little_noise():
    """The weight is min(SNR, 5) / SNR: small at t = 0, one where the noise is strong."""
    weight = training._loss_weight(alphas_cumprod(), "min-snr")
    assert pytest.approx(5.0 / (0.9999 / 1e-4), rel=1e-5) == weight[0].item()
    assert weight[-1].item() == 1.0


def test_a_diverged_loss_stops_before_it_is_saved():
    """NaN is an error that says what to do."""
    with pytest.raises(ValueError, match="lower --lr"):
        training._check_finite(math.nan, 200)
