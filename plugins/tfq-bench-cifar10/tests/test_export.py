"""The embedded weights and where they come from: those that ship, and freshly exported ones."""

import hashlib
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from tfq_bench.quant.guidance import guided_prediction
from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint
from tfq_bench_cifar10.embedded import WEIGHTS
from tfq_bench_cifar10.export import WEIGHTS_BYTES, export, main, thinned
from tfq_bench_cifar10.model import Cifar10Model
from tfq_bench_cifar10.network import NETWORKS, build_trainable
from tfq_bench_cifar10.reference import ReferenceStatistics

COMMIT = "0123456789abcdef0123456789abcdef01234567"


SHIPPED = [network for network in NETWORKS.values() if (WEIGHTS / f"{network.file}.json").exists()]


@pytest.fixture(
    scope="module",
    params=[
        *(("exported", network) for network in NETWORKS.values()),
        *(("shipped", network) for network in SHIPPED),
    ],
    ids=lambda param: f"{param[0]}-{param[1].name}",
)
def folder(request, trained, tmp_path_factory):
    """What the package embeds, and what the export makes today: both keep to one format."""
    kind, network = request.param
    if kind == "shipped":
        return WEIGHTS, network
    target = tmp_path_factory.mktemp("exported") / "weights"
    export(trained(network, 2), target, COMMIT)
    return target, network


@pytest.fixture(scope="module")
def facts(folder):
    """The provenance in the folder."""
    target, network = folder
    return json.loads((target / f"{network.file}.json").read_text("utf-8"))


def test_weights_are_those_of_the_network_in_float16(folder):
    """Names and shapes are the network's, every value is a finite float16, the file is small."""
    target, network = folder
    path = target / f"{network.file}.safetensors"
    weights = load_file(path)
    expected = {name: value.shape for name, value in build_trainable(network).state_dict().items()}
    assert expected == {name: value.shape for name, value in weights.items()}
    assert {torch.float16} == {value.dtype for value in weights.values()}
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert path.stat().st_size < WEIGHTS_BYTES


def test_provenance_describes_the_file_beside_it(folder, facts):
    """Name, digest and number of parameters are those of the weights."""
    target, network = folder
    content = (target / facts["weights"]).read_bytes()
    assert facts["weights"] == f"{network.file}.safetensors"
    assert hashlib.sha256(content).hexdigest() == facts["weights_sha256"]
    expected = {"unet": 6_472_195, "conditional": 7_524_899, "dit": 7_628_364}
    assert expected[network.name] == facts["parameters"]
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
    path = WEIGHTS / "reference-efficientnet-lite0.safetensors"
    digest = ReferenceStatistics.load(path).provenance["data_sha256"]
    for network in SHIPPED:
        facts = json.loads((WEIGHTS / f"{network.file}.json").read_text("utf-8"))
        assert digest == facts["data_sha256"], network.name


def test_the_export_is_the_moving_average(checkpoint, tmp_path):
    """Not the last weights, but their average is exported; facts come from the checkpoint."""
    facts = export(checkpoint, tmp_path / "weights", COMMIT)
    weights = load_file(tmp_path / "weights" / "unet-ddpm.safetensors")
    average = load_checkpoint(checkpoint)[0]["ema"]
    assert all(torch.equal(value.half(), weights[name]) for name, value in average.items())
    assert tuple(facts[key] for key in ("commit", "steps", "images", "seed")) == (COMMIT, 2, 8, 0)


def test_an_exported_model_is_accepted_by_the_plugin(network, trained, tmp_path, embed):
    """From training through export to images: the moving average is what draws them."""
    folder = trained(network, 2)
    main(["--checkpoint", str(folder), "--to", str(tmp_path / "w"), "--commit", COMMIT])
    embed(tmp_path / "w")
    model = Cifar10Model(network, guidance=2.0)
    loaded = model.load(device="cpu", dtype=torch.float32)
    average = load_checkpoint(folder)[0]["ema"]
    for name, value in loaded.named_parameters():
        assert torch.equal(average[name].half().float(), value), name
    if network.tokens:
        rows = model.conditions(range(10), device="cpu")[network.argument]
        assert torch.equal(average["class_tokens"][:10].half().float(), rows)
    sampler = model.sampler("ddim", 2)
    state = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    condition = model.conditions(range(3), device="cpu")
    for index, t in enumerate(sampler.timesteps):
        epsilon = guided_prediction(model, loaded, state, torch.full((3,), t), condition)
        state = sampler.step(state, epsilon, index, None)
    images = model.decode(state)
    assert torch.Size([3, 32, 32, 3]) == images.shape
    assert len(images.unique()) > 10


def test_networks_are_exported_side_by_side(trained, tmp_path):
    """One export leaves the files of another alone."""
    for network in NETWORKS.values():
        export(trained(network, 2), tmp_path, COMMIT)
    assert len(list(tmp_path.iterdir())) == 2 * len(NETWORKS)


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
