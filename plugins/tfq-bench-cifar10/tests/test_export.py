"""The embedded weights and where they come from: those that ship, and freshly exported ones."""

import hashlib
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from tfq_bench_cifar10 import model
from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint
from tfq_bench_cifar10.export import WEIGHTS_BYTES, export, main, thinned
from tfq_bench_cifar10.network import build_unet
from tfq_bench_cifar10.reference import ReferenceStatistics

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", params=["exported", "shipped"])
def folder(request, tmp_path_factory):
    """What the package embeds, and what the export makes today: both keep to one format."""
    if request.param == "shipped":
        return model.WEIGHTS
    target = tmp_path_factory.mktemp("exported") / "weights"
    export(request.getfixturevalue("checkpoint"), target, COMMIT)
    return target


@pytest.fixture(scope="module")
def facts(folder):
    """The provenance in the folder."""
    return json.loads((folder / "provenance.json").read_text("utf-8"))


def test_weights_are_those_of_the_network_in_float16(folder):
    """Names and shapes are the network's, every value is a finite float16, the file is small."""
    weights = load_file(folder / "unet-ddpm.safetensors")
    expected = {name: value.shape for name, value in build_unet().state_dict().items()}
    assert expected == {name: value.shape for name, value in weights.items()}
    assert {torch.float16} == {value.dtype for value in weights.values()}
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert (folder / "unet-ddpm.safetensors").stat().st_size < WEIGHTS_BYTES


def test_provenance_describes_the_file_beside_it(folder, facts):
    """Name, digest and number of parameters are those of the weights."""
    content = (folder / facts["weights"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == facts["weights_sha256"]
    assert facts["parameters"] == 6_472_195
    assert facts["weights_kind"] == "moving average, float16"


def test_provenance_tells_how_to_train_again(facts):
    """Script, full commit, data, seed, settings and machine are there; the numbers add up."""
    assert facts["script"] == "tfq_bench_cifar10.train"
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"])
    assert re.fullmatch("[0-9a-f]{64}", facts["data_sha256"])
    assert facts["steps"] * facts["batch"] == facts["images"] > 0
    assert {"seed", "lr", "ema", "dropout", "loss", "device", "torch"} <= facts.keys()
    assert "Apache-2.0" in facts["licence_note"]
    assert "JPEG" in facts["data_note"]


def test_loss_curve_ends_with_the_training(facts):
    """Steps increase up to the last one, every loss is a finite positive number."""
    steps = [step for step, _ in facts["loss_curve"]]
    assert steps == sorted(set(steps))
    assert steps[-1] == facts["steps"]
    assert all(math.isfinite(loss) and loss > 0 for _, loss in facts["loss_curve"])


def test_shipped_weights_and_statistics_are_of_the_same_data():
    """The model is compared with the images that it was trained on."""
    facts = json.loads((model.WEIGHTS / "provenance.json").read_text("utf-8"))
    path = model.WEIGHTS / "reference-efficientnet-lite0.safetensors"
    assert ReferenceStatistics.load(path).provenance["data_sha256"] == facts["data_sha256"]


def test_the_export_is_the_moving_average(checkpoint, tmp_path):
    """Not the last weights, but their average is exported; facts come from the checkpoint."""
    facts = export(checkpoint, tmp_path / "weights", COMMIT)
    weights = load_file(tmp_path / "weights" / "unet-ddpm.safetensors")
    average = load_checkpoint(checkpoint)[0]["ema"]
    assert all(torch.equal(value.half(), weights[name]) for name, value in average.items())
    assert tuple(facts[key] for key in ("commit", "steps", "images", "seed")) == (COMMIT, 2, 8, 0)


def test_an_exported_model_is_accepted_by_the_plugin(checkpoint, tmp_path, embed):
    """What the command writes, the model loads."""
    main(["--checkpoint", str(checkpoint), "--to", str(tmp_path / "w"), "--commit", COMMIT])
    embed(tmp_path / "w")
    network = model.Cifar10Model().load(device="cpu", dtype=torch.float32)
    average = load_checkpoint(checkpoint)[0]["ema"]
    assert torch.equal(average["conv_in.weight"].float(), network.conv_in.weight)


def test_a_diverged_average_is_not_exported(checkpoint, tmp_path):
    """A weight that is no finite float16 number stops the export and names its tensor."""
    groups, state = load_checkpoint(checkpoint)
    groups["ema"]["conv_in.bias"] = torch.full((64,), 1e6)
    save_checkpoint(tmp_path / "bad", groups, state)
    with pytest.raises(ValueError, match=r"found others in conv_in\.bias"):
        export(tmp_path / "bad", tmp_path / "weights", "abc123")
    assert not (tmp_path / "weights").exists()


def test_weights_of_another_network_are_not_exported(checkpoint, tmp_path):
    """A checkpoint of other code is refused before anything is written."""
    groups, state = load_checkpoint(checkpoint)
    del groups["ema"]["conv_in.bias"]
    save_checkpoint(tmp_path / "other", groups, state)
    with pytest.raises(ValueError, match="Export with the code that trained it"):
        export(tmp_path / "other", tmp_path / "weights", COMMIT)
    assert not (tmp_path / "weights").exists()


def test_a_long_curve_is_thinned_to_its_ends():
    """At most 200 points stay, the first and the last among them."""
    curve = [[step, 0.5] for step in range(1234)]
    short = thinned(curve)
    assert len(short) == 200
    assert (short[0], short[-1]) == ([0, 0.5], [1233, 0.5])
