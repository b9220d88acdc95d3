"""Every family keeps the model contract, from a folder as `save_pretrained` writes it."""

from __future__ import annotations

import json
import shutil
from typing import ClassVar

import diffusers
import pytest
import torch

from tfq_bench import api
from tfq_bench.quant import guided_prediction
from tfq_bench.testing.contracts import ModelContract
from tfq_bench_diffusers import presets
from tfq_bench_diffusers.families import PRESETS, architecture
from tfq_bench_diffusers.model import DiffusersModel

FAMILIES = ("ddpm", "flat", "ldm", "sd", "sdxl", "dit", "pixart")
GUIDED = ("sd", "sdxl", "dit", "pixart")


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    """Each family in turn."""
    return request.param


class TestContract(ModelContract):
    """The contract, for each family."""

    samplers: ClassVar = ("ddim", "pndm", "dpm-solver++", "euler", "ddpm")

    @pytest.fixture(autouse=True)
    def _folder(self, family, make_folder):
        self._source = str(make_folder(family))
        self._scale = 3.0 if family in GUIDED else 1.0

    def make(self) -> api.Model:
        """The model of a folder."""
        return DiffusersModel(source=self._source, guidance=self._scale)


@pytest.mark.parametrize(
    ("name", "size"),
    [("ddpm", 8), ("ldm", 16), ("sd", 16), ("sdxl", 16), ("dit", 16), ("pixart", 16)],
)
def test_images_have_the_size_of_the_decoder(make_folder, name, size):
    """Latents of 8x8 become what the autoencoder makes of them."""
    model = DiffusersModel(source=str(make_folder(name)))
    latents = torch.zeros(2, *model.latent_shape)
    assert (2, size, size, 3) == tuple(model.decode(latents).shape)


def test_resolution_is_in_pixels(make_folder):
    """The latent is smaller by the decoder's factor, and SDXL is told the pixels."""
    model = DiffusersModel(source=str(make_folder("sdxl")), resolution=32)
    assert (4, 16, 16) == model.latent_shape
    sizes = model.conditions([0], device="cpu")["sizes"]
    assert [32.0, 32.0, 0.0, 0.0, 32.0, 32.0] == sizes[0].tolist()
    odd = DiffusersModel(source=str(make_folder("sdxl")), resolution=33)
    with pytest.raises(api.SuiteError, match="2 divides, found 33"):
        _ = odd.latent_shape


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_moves_the_prediction(make_folder, name):
    """Both branches are known, and differ."""
    plain = DiffusersModel(source=str(make_folder(name)))
    guided = DiffusersModel(source=str(make_folder(name)), guidance=5.0)
    network = plain.load(device="cpu", dtype=torch.float32)
    x = torch.randn(2, *plain.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((2,), 500)
    condition = plain.conditions([0, 1], device="cpu")
    expected = guided_prediction(plain, network, x, t, condition)
    found = guided_prediction(guided, network, x, t, condition)
    assert not torch.allclose(expected, found)


def test_guidance_of_an_unconditional_model_is_refused(make_folder):
    """Nothing could be left out."""
    model = DiffusersModel(source=str(make_folder("ddpm")), guidance=2.0)
    with pytest.raises(api.SuiteError, match="cannot be guided"):
        model.guidance(device="cpu")


def test_prompts_go_by_image_index(make_folder, tmp_path):
    """They repeat, and another file is another model."""
    (tmp_path / "prompts.txt").write_text("a b\n\nc d\n")
    model = DiffusersModel(source=str(make_folder("sd")), prompts=str(tmp_path / "prompts.txt"))
    assert ["a b", "c d", "a b"] == model.prompts([0, 1, 2])
    text = model.conditions([0, 1, 2], device="cpu")["text"]
    assert torch.equal(text[0], text[2])
    assert not torch.equal(text[0], text[1])
    assert model.digest != DiffusersModel(source=str(make_folder("sd"))).digest


def test_prompts_of_classes_are_their_names(make_folder, tmp_path):
    """Where the pipeline has them: the image of index i shows class i, by its first name."""
    assert DiffusersModel(source=str(make_folder("dit"))).prompts([0]) is None
    folder = shutil.copytree(make_folder("dit"), tmp_path / "named")
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {str(i): f"kind{i}, Genus {i}" for i in range(10)}
    (folder / "model_index.json").write_text(json.dumps(index))
    model = DiffusersModel(source=str(folder))
    expected = ["a photo of a kind0", "a photo of a kind9", "a photo of a kind2"]
    assert expected == model.prompts([0, 9, 12])
    assert [0, 9, 2] == model.conditions([0, 9, 12], device="cpu")["labels"].tolist()
    assert DiffusersModel(source=str(folder), weights="random").prompts([0]) is None
    del index["id2label"]["3"]  # names that are not one a class name nothing
    (folder / "model_index.json").write_text(json.dumps(index))
    assert DiffusersModel(source=str(folder)).prompts([0]) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_network_of_16_bits_takes_and_gives_float32(make_folder, dtype):
    """The sampler's arithmetic stays in float32."""
    model = DiffusersModel(source=str(make_folder("sdxl")), dtype=dtype)
    network = model.load(device="cpu", dtype=model.dtype)
    condition = model.conditions([0], device="cpu")
    x = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    found = model.predict(network, x, torch.full((1,), 500), condition)
    assert torch.float32 == found.dtype
    whole = DiffusersModel(source=str(make_folder("sdxl")))
    assert whole.topology(whole.load(device="cpu", dtype=torch.float32)) == model.topology(network)
    exact = whole.predict(
        whole.load(device="cpu", dtype=torch.float32), x, torch.full((1,), 500), condition
    )
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.05


def test_random_weights_of_a_folder_have_its_architecture(make_folder):
    """The same at every call, and another model than the trained one."""
    source = str(make_folder("dit"))
    random = DiffusersModel(source=source, weights="random")
    one, two = (random.load(device="cpu", dtype=torch.float32) for _ in range(2))
    for (name, expected), found in zip(
        one.state_dict().items(), two.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, found), name
    trained = DiffusersModel(source=source)
    assert random.digest != trained.digest
    shapes = {name: value.shape for name, value in one.state_dict().items()}
    network = trained.load(device="cpu", dtype=torch.float32)
    assert shapes == {name: value.shape for name, value in network.state_dict().items()}
    # Tables that are no weights are computed, not drawn.
    torch.testing.assert_close(network.pos_embed.pos_embed, one.pos_embed.pos_embed)


def test_model_that_is_not_here_says_how_to_get_it():
    """Before anything is loaded, and without a network."""
    model = DiffusersModel(preset="sdxl", source="stabilityai/stable-diffusion-xl-base-1.0")
    with pytest.raises(api.AssetError, match="'tfq-bench assets fetch sdxl'"):
        _ = model.digest


def test_folder_of_something_else_is_refused(tmp_path):
    """It names what was expected."""
    with pytest.raises(api.AssetError, match=r"model_index\.json"):
        _ = DiffusersModel(source=str(tmp_path)).digest
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(api.AssetError, match="expected a denoising network"):
        _ = DiffusersModel(source=str(tmp_path)).digest


def test_damaged_weights_are_refused(make_folder, tmp_path):
    """And a change of one byte is another model."""
    folder = shutil.copytree(make_folder("ddpm"), tmp_path / "copy")
    before = DiffusersModel(source=str(folder)).digest
    assert DiffusersModel(source=str(make_folder("ddpm"))).digest == before
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert before != DiffusersModel(source=str(folder)).digest
    path.write_bytes(content[:-5])
    model = DiffusersModel(source=str(folder))
    for use in (lambda: model.digest, lambda: model.load(device="cpu", dtype=torch.float32)):
        with pytest.raises(api.AssetError, match="expected the weights in a safetensors file"):
            use()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_packaged_architectures_are_the_published_networks(name):
    """As many parameters as are stated, found without weights or a network."""
    preset = PRESETS[name]
    config = architecture(preset.architecture)["network"]
    with torch.device("meta"):
        network = getattr(diffusers, config["_class_name"]).from_config(config)
    assert preset.parameters == sum(parameter.numel() for parameter in network.parameters())
    model = DiffusersModel(preset=name, source=preset.source, weights="random")
    layers = model.topology(network).layers
    assert preset.gmac == pytest.approx(sum(layer.macs for layer in layers) / 1e9, rel=0.01)
    assert model.latent_shape[1] * preset.factor in (32, 256, 512, 1024)
    assert model.sampler(preset.sampler, 10).timesteps
    row = model.conditions([0], device="cpu")
    assert (preset.tokens > 0) == ("text" in row)


def test_keys_of_the_scheduler_that_change_nothing_are_told(make_folder):
    """In one line a sampler; what the sampler reads is not among them."""
    model = DiffusersModel(source=str(make_folder("ddpm")))
    (told,) = model.remarks("euler")
    assert told.startswith("its scheduler's '")
    assert "'variance_type'" in told
    assert told.endswith(" change nothing under sampler 'euler'")
    assert "beta_start" not in told


def test_factories_of_named_models_know_their_preset():
    """`presets:sd_v1_4` is the factory of `sd-v1-4`; other names are no attributes."""
    assert {"preset": "sd-v1-4"} == presets.sd_v1_4.keywords
    with pytest.raises(AttributeError, match=r"presets' has no attribute 'sd_v9'"):
        presets.sd_v9  # noqa: B018
