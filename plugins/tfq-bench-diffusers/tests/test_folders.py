"""Folders as the hub has them: older than today's diffusers, divided into files, or broken."""

from __future__ import annotations

import json
import shutil

import diffusers
import pytest
import torch

from tfq_bench import api
from tfq_bench.cli import main
from tfq_bench_diffusers.decode import Decoder
from tfq_bench_diffusers.model import DiffusersModel

SUITE = """
schema = 1

[suite]
name = "one"

[sampling]
sampler = "ddim"
steps = 2
images = 2
batch = 2
shard = 2

[[model]]
name = "diffusers"
source = "{source}"
weights = "{weights}"

[[quantizer]]
name = "fp"

[[quantizer]]
name = "rtn"
wbits = [8]
abits = 8

[[backend]]
name = "simulate"

[[metric]]
name = "bits"
"""


@pytest.fixture
def copy_folder(make_folder, tmp_path):
    """A family's folder to be changed."""

    def copy(family: str):
        return shutil.copytree(make_folder(family), tmp_path / family)

    return copy


def decoder(folder) -> Decoder:
    """The autoencoder in a folder, with what its file states."""
    return Decoder(folder, json.loads((folder / "config.json").read_text()))


def edit(path, **changes) -> None:
    """Set entries of a JSON file; None removes."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def assert_same(expected: DiffusersModel, found: DiffusersModel) -> None:
    """The same weights to the bit, and the same network around them."""
    one, two = (m.load(device="cpu", dtype=torch.float32).state_dict() for m in (expected, found))
    assert list(one) == list(two)
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    # Where tensors lie in memory may change the order of a sum.
    torch.testing.assert_close(prediction(found), prediction(expected))


def prediction(model: DiffusersModel) -> torch.Tensor:
    """Of a fixed state."""
    network = model.load(device="cpu", dtype=torch.float32)
    x = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return model.predict(network, x, torch.full((1,), 300), model.conditions([0], device="cpu"))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize("family", ["dit", "pixart"])
def test_transformers_are_known_by_the_name_they_were_published_under(
    make_folder, copy_folder, family, weights
):
    """The hub's DiT and PixArt say `Transformer2DModel`, and are the same networks."""
    folder = copy_folder(family)
    edit(folder / "transformer" / "config.json", _class_name="Transformer2DModel")
    edit(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    expected = DiffusersModel(source=str(make_folder(family)), weights=weights)
    assert_same(expected, DiffusersModel(source=str(folder), weights=weights))


def test_transformer_of_another_kind_is_refused(copy_folder):
    """A norm that neither has is named by no class of ours."""
    folder = copy_folder("dit")
    edit(
        folder / "transformer" / "config.json",
        _class_name="Transformer2DModel",
        norm_type="layer_norm",
    )
    with pytest.raises(api.AssetError, match="found 'Transformer2DModel'"):
        _ = DiffusersModel(source=str(folder)).digest


@pytest.mark.parametrize(("stated", "scale"), [(None, 1.0), (0.5, 0.5)])
def test_old_vq_models_take_latents_as_they_are(copy_folder, stated, scale):
    """Where the configuration states no factor, that of Stable Diffusion is not assumed."""
    folder = copy_folder("ldm") / "vqvae"
    edit(folder / "config.json", scaling_factor=stated)
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = diffusers.VQModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network.decode(latents / scale).sample
    assert torch.equal(expected, decoder(folder)(latents))


def test_old_kl_models_keep_the_factor_of_stable_diffusion(copy_folder):
    """Stable Diffusion's own configuration states none."""
    folder = copy_folder("sd") / "vae"
    edit(folder / "config.json", scaling_factor=None)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    network = diffusers.AutoencoderKL.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network.decode(latents / 0.18215).sample
    assert torch.equal(expected, decoder(folder)(latents))


@pytest.mark.parametrize(
    ("family", "part"), [("ddpm", "unet"), ("sd", "text_encoder"), ("ldm", "vqvae")]
)
def test_absent_weights_are_found_before_work_starts(copy_folder, tmp_path, capsys, family, part):
    """One message, no traceback and no run folder with half a cell."""
    folder = copy_folder(family)
    for file in (folder / part).glob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE.format(source=folder, weights="pretrained"))
    assert 2 == main(["run", str(suite), "--run", str(tmp_path / "run")])
    told = capsys.readouterr().err
    assert f"{part}: no weights" in told
    assert "Traceback" not in told
    assert not (tmp_path / "run" / "records.jsonl").exists()


def test_absent_component_is_found(copy_folder):
    """What the index names has to be there."""
    folder = copy_folder("sdxl")
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(api.AssetError, match="tokenizer_2: no folder"):
        _ = DiffusersModel(source=str(folder)).digest


def test_weights_in_several_files_must_all_be_there(make_folder, copy_folder):
    """They load as one, and a missing one is named."""
    folder = copy_folder("ddpm")
    shutil.rmtree(folder / "unet")
    network = diffusers.UNet2DModel.from_pretrained(make_folder("ddpm") / "unet")
    network.save_pretrained(folder / "unet", max_shard_size="8KB")
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    model = DiffusersModel(source=str(folder))
    assert len(model.digest) == 64
    assert_same(DiffusersModel(source=str(make_folder("ddpm"))), model)
    shards[1].unlink()
    with pytest.raises(api.AssetError, match=f"1 of {len(shards)} weight files absent"):
        _ = DiffusersModel(source=str(folder)).digest


def test_pipeline_is_part_of_the_model(make_folder, copy_folder):
    """How an empty prompt is encoded is stated nowhere else."""
    folder = copy_folder("sdxl")
    expected = DiffusersModel(source=str(make_folder("sdxl"))).digest
    assert expected == DiffusersModel(source=str(folder)).digest
    edit(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    assert expected != DiffusersModel(source=str(folder)).digest


def test_random_weights_need_no_weight_files(make_folder, copy_folder):
    """Neither the network's nor the decoder's; latents are shown instead."""
    folder = copy_folder("sd")
    whole = DiffusersModel(source=str(make_folder("sd")), weights="random")
    for file in [*(folder / "unet").glob("*.safetensors"), *folder.glob("text*/*.safetensors")]:
        file.unlink()
    model = DiffusersModel(source=str(folder), weights="random")
    assert whole.digest == model.digest
    assert_same(whole, model)
    latents = torch.zeros(1, *model.latent_shape)
    assert (1, 16, 16, 3) == tuple(model.decode(latents).shape)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert (1, 8, 8, 3) == tuple(
        DiffusersModel(source=str(folder), weights="random").decode(latents).shape
    )


def test_every_record_says_that_weights_are_random(make_folder, tmp_path):
    """So that no table shows their images as a model's."""
    for weights in ("random", "pretrained"):
        suite = tmp_path / f"{weights}.toml"
        suite.write_text(SUITE.format(source=make_folder("ddpm"), weights=weights))
        run = tmp_path / weights
        assert 0 == main(["run", str(suite), "--run", str(run)])
        records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        assert records
        for record in records:
            assert weights == json.loads(record["axes"]["model_options"])["weights"]
