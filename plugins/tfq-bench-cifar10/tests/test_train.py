"""Training in sessions, its checkpoint and the export of the weights."""

import hashlib
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from tfq_bench_cifar10 import train as training
from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint
from tfq_bench_cifar10.export import export, thinned
from tfq_bench_cifar10.network import alphas_cumprod, build_unet


def session(data_file, out, steps, *more):
    """Runs one session up to `steps` on the CPU."""
    words = ["--data", data_file, "--out", out, "--steps", steps, "--batch", 4, "--device", "cpu"]
    return training.train(training.arguments().parse_args([*map(str, words), *more]))


@pytest.fixture(scope="module")
def checkpoint(data_file, tmp_path_factory):
    """A training of two steps."""
    out = tmp_path_factory.mktemp("train") / "run"
    session(data_file, out, 2)
    return out


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


def test_a_save_that_is_cut_off_leaves_the_last_checkpoint(tmp_path):
    """Until state.json is replaced, the previous checkpoint loads whole."""
    save_checkpoint(tmp_path, {"model": {"w": torch.ones(3)}}, {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, {"model": {"w": torch.zeros(3)}}, {"step": 2, "bad": object()})
    groups, state = load_checkpoint(tmp_path)
    assert state == {"step": 1}
    assert groups["model"]["w"].tolist() == [1.0, 1.0, 1.0]


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


def test_the_export_is_the_average_in_float16_with_its_provenance(checkpoint, tmp_path):
    """The exported file loads into the network and its digest and facts are recorded."""
    export(checkpoint, tmp_path / "weights", "abc123")
    path = tmp_path / "weights" / "unet-ddpm.safetensors"
    weights, facts = load_file(path), json.loads((path.parent / "provenance.json").read_text())
    build_unet().load_state_dict(weights, strict=True)
    average = load_checkpoint(checkpoint)[0]["ema"]
    assert all(torch.equal(value.half(), weights[name]) for name, value in average.items())
    assert path.stat().st_size < 16_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["weights_sha256"]
    assert tuple(facts[key] for key in ("commit", "steps", "images", "seed")) == ("abc123", 2, 8, 0)


def test_a_diverged_average_is_not_exported(checkpoint, tmp_path):
    """A weight that is no finite float16 number stops the export and names its tensor."""
    groups, state = load_checkpoint(checkpoint)
    groups["ema"]["conv_in.bias"] = torch.full((64,), 1e6)
    save_checkpoint(tmp_path / "bad", groups, state)
    with pytest.raises(ValueError, match=r"found others in conv_in\.bias"):
        export(tmp_path / "bad", tmp_path / "weights", "abc123")
    assert not (tmp_path / "weights").exists()


def test_a_long_curve_is_thinned_to_its_ends():
    """At most 200 points stay, the first and the last among them."""
    curve = [[step, 0.5] for step in range(1234)]
    short = thinned(curve)
    assert len(short) == 200
    assert (short[0], short[-1]) == ([0, 0.5], [1233, 0.5])
