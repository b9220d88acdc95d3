"""Converted checkpoints compute what the original networks compute, and keep their classes."""

from __future__ import annotations

from typing import ClassVar

import diffusers
import pytest
import torch

from tfq_bench import api
from tfq_bench.testing.contracts import ModelContract
from tfq_bench_diffusers.convert import FAMILIES
from tfq_bench_diffusers.families import PRESETS
from tfq_bench_diffusers.heads import without_heads
from tfq_bench_diffusers.model import DiffusersModel

from .checkpoints import converted, draw, with_average


def test_network_computes_what_the_original_computes(original, tmp_path):
    """All levels, attentions and resamplings are in their places."""
    model = DiffusersModel(source=str(converted(original, tmp_path)))
    network = model.load(device="cpu", dtype=torch.float32).double()
    x, t = draw(1, 3, *model.latent_shape).double(), torch.tensor([1, 400, 981])
    arguments = {}
    context = None
    if original.spec.context:
        context = original.classes()[[0, 2, 4], None]
        arguments = {"encoder_hidden_states": context}
    with torch.no_grad():
        found = network(x, t, **arguments).sample
    expected = original.predict(x, t, context)
    # diffusers makes the sinusoid of the timestep in float32.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_images_are_those_of_the_original_decoder(original, tmp_path):
    """Scaling, codebook and decoder: to the rounding of a pixel."""
    model = DiffusersModel(source=str(converted(original, tmp_path)))
    latents = draw(2, 2, *model.latent_shape)
    expected = original.decode(latents).clamp(-1, 1).add(1).mul(127.5).round()
    found = model.decode(latents).permute(0, 3, 1, 2)
    assert expected.shape == found.shape
    assert 1 >= int((expected - found.double()).abs().max())
    assert 20 < float(expected.std())


def test_encoder_is_that_of_the_original(original, tmp_path):
    """Nobody samples with it, but a folder holds a whole autoencoder."""
    folder = converted(original, tmp_path)
    kind = getattr(diffusers, original.family.decoder["_class_name"])
    name = "vae" if original.spec.kl else "vqvae"
    network = kind.from_pretrained(folder / name).double()
    pixels = draw(3, 1, 3, 32, 32).double()
    with torch.no_grad():
        found = network.encode(pixels)
    mean = found.latent_dist.mean if original.spec.kl else found.latents
    expected = original.encode(pixels)[:, : original.spec.latents]
    torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-8)


def test_scheduler_is_that_of_the_original_sampler(originals, tmp_path):
    """Every fifth timestep plus one, and down to the first signal level."""
    model = DiffusersModel(source=str(converted(originals["ldm8-church"], tmp_path)))
    assert (981, 961, 1) == (lambda t: (t[0], t[1], t[-1]))(model.sampler("ddim", 50).timesteps)
    definition = model.sampler("ddim", 50).definition
    assert 0.0015 == pytest.approx(definition["first beta"])
    assert 1 - 0.0015 == pytest.approx(definition["final signal"])
    assert model.sampler("ddim-compvis", 50).timesteps == model.sampler("ddim", 50).timesteps


def test_moving_average_is_written_when_there_is_one(originals, tmp_path):
    """It is what these models were sampled with."""
    original = originals["ldm4-bedroom"]
    folder = converted(original, tmp_path, with_average(original.tensors, 1.5))
    network = diffusers.UNet2DModel.from_pretrained(folder / "unet")
    expected = 1.5 * original.tensors["model.diffusion_model.time_embed.0.weight"]
    torch.testing.assert_close(network.time_embedding.linear_1.weight.data, expected)


def test_file_format_does_not_matter(originals, tmp_path):
    """A checkpoint of the trainer and one of bare tensors give the same files."""
    original = originals["ldm4-imagenet"]
    folders = []
    for suffix in (".ckpt", ".safetensors"):
        (tmp_path / suffix).mkdir()
        folders.append(converted(original, tmp_path / suffix, suffix=suffix))
    files = [sorted(path.relative_to(one) for path in one.rglob("*.*")) for one in folders]
    assert files[0] == files[1]
    assert 8 == len(files[0])
    assert [(folders[0] / name).read_bytes() for name in files[0]] == [
        (folders[1] / name).read_bytes() for name in files[1]
    ]


def test_every_weight_is_written_once(original, tmp_path):
    """Nothing is lost or written twice: the sums of all numbers agree."""
    folder = converted(original, tmp_path)
    from safetensors.torch import load_file

    written = [
        value for path in folder.rglob("*.safetensors") for value in load_file(path).values()
    ]
    tables = ("betas", "alphas_cumprod", "scale_factor")
    given = [value for name, value in original.tensors.items() if name not in tables]
    assert sum(value.numel() for value in given) == sum(value.numel() for value in written)
    expected = torch.cat([value.flatten() for value in given]).sort().values
    found = torch.cat([value.flatten() for value in written]).sort().values
    assert torch.equal(expected, found)


def test_training_tensors_of_the_decoder_are_left_out(originals, tmp_path):
    """Its discriminator is no part of a model that samples."""
    original = originals["ldm4-bedroom"]
    loss = {"first_stage_model.loss.discriminator.main.0.weight": torch.ones(2)}
    folder = converted(original, tmp_path, {**original.tensors, **loss})
    assert (folder / "model_index.json").is_file()


def test_heads_of_several_sizes_are_not_lost_in_silence(originals, tmp_path):
    """Alone, diffusers refuses such a network; loaded or random, ours has the right heads."""
    folder = converted(originals["ldm8-church"], tmp_path)
    with pytest.raises(TypeError):
        diffusers.UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False)
    for weights in ("pretrained", "random"):
        model = DiffusersModel(source=str(folder), weights=weights)
        network = model.load(device="cpu", dtype=torch.float32)
        heads = [one.heads for name, one in network.named_modules() if hasattr(one, "to_q")]
        assert [4] * (2 * 4 + 3 * 4 + 1) == heads


@pytest.mark.parametrize(
    ("name", "millions"),
    # arXiv:2112.10752, tables 12 and 14.
    [
        ("ldm4-bedroom", 274),
        ("ldm4-ffhq", 274),
        ("ldm4-celeba", 274),
        ("ldm8-church", 294),
        ("ldm4-imagenet", 400),
    ],
)
def test_published_families_have_the_published_size(name, millions):
    """The U-Net's weights, in millions, as the paper rounds them."""
    config = FAMILIES[name].network
    with torch.device("meta"):
        network = getattr(diffusers, config["_class_name"]).from_config(
            {**config, **without_heads(config)}
        )
    count = sum(value.numel() for value in network.parameters())
    assert millions == count // 1_000_000
    if millions == 274:
        assert PRESETS["ldm-celebahq"].parameters == count


class TestContract(ModelContract):
    """Converted models keep the contract of models."""

    samplers: ClassVar = ("ddim", "ddim-compvis")

    @pytest.fixture(autouse=True)
    def _folder(self, original, tmp_path):
        self._source = str(converted(original, tmp_path))
        self._scale = 3.0 if original.spec.context else 1.0

    def make(self) -> api.Model:
        """The model of a converted folder."""
        return DiffusersModel(source=self._source, guidance=self._scale)


def test_classes_follow_the_image_index(originals, tmp_path):
    """One token each; the last row is no class, and guidance leads away from it."""
    original = originals["ldm4-imagenet"]
    model = DiffusersModel(source=str(converted(original, tmp_path)), guidance=3.0)
    told = model.conditions(range(5), device="cpu")["text"]
    expected = original.classes().float()
    assert (5, 1, 6) == tuple(told.shape)
    assert torch.equal(expected[[0, 1, 2, 3, 0]], told[:, 0])
    guidance = model.guidance(device="cpu")
    assert guidance is not None
    assert torch.equal(expected[4:], guidance.condition["text"][0])
    assert model.prompts([0]) is None


def test_classes_belong_to_the_digest(originals, tmp_path):
    """Other embeddings are another model."""
    original = originals["ldm4-imagenet"]
    digests = set()
    for factor in (1.0, 2.0):
        (tmp_path / str(factor)).mkdir()
        name = "cond_stage_model.embedding.weight"
        tensors = {**original.tensors, name: factor * original.tensors[name]}
        folder = converted(original, tmp_path / str(factor), tensors)
        digests.add(DiffusersModel(source=str(folder)).digest)
    assert 2 == len(digests)


def test_random_weights_have_the_same_condition(originals, tmp_path):
    """One token, so that speed and memory are those of the real model."""
    folder = converted(originals["ldm4-imagenet"], tmp_path)
    model = DiffusersModel(source=str(folder), weights="random")
    assert (2, 1, 6) == tuple(model.conditions([0, 1], device="cpu")["text"].shape)
