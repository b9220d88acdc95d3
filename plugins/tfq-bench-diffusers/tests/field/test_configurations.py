"""What is not understood in a folder's configurations is refused by name."""

from __future__ import annotations

import inspect

import diffusers
import pytest

from tfq_bench import api
from tfq_bench_diffusers.known_keys import DECODERS, NETWORKS
from tfq_bench_diffusers.model import DiffusersModel

from .changed_folders import check_refused, digest, edit


def test_keys_that_are_left_to_defaults_are_none(copy_folder):
    """`_use_default_values`, which diffusers honours wherever it stands."""
    folder = copy_folder("ddpm")
    path = folder / "scheduler" / "scheduler_config.json"
    before = DiffusersModel(source=str(folder)).sampler("ddim", 5).definition
    edit(path, beta_start=0.00085, _use_default_values=["beta_start"])
    expected = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler").config.beta_start
    assert 0.0001 == expected
    assert before == DiffusersModel(source=str(folder)).sampler("ddim", 5).definition


@pytest.mark.parametrize(
    "source",
    ["x" * 300, f"a/{'b' * 300}", "a\0b", "~nobody-of-this-name/m", "C:\\m", "a\nb/c", "\udcff"],
)
def test_what_no_folder_can_be_called_is_none(source):
    """One sentence, also where the operating system will not even look."""
    with pytest.raises(
        api.AssetError, match="which is neither a folder nor in the cache"
    ) as caught:
        DiffusersModel(source=source).digest  # noqa: B018
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -8, True])
def test_a_size_that_is_none_is_refused(copy_folder, size):
    """Before anything is loaded."""
    folder = copy_folder("ddpm")
    edit(folder / "unet" / "config.json", sample_size=size)
    check_refused(folder, f"sample_size = {size}", "above 0")


@pytest.mark.parametrize("kind", sorted({**NETWORKS, **DECODERS}))
def test_tables_have_every_key_of_diffusers(kind):
    """A key that a new version of diffusers adds is not understood until it is listed."""
    signature = inspect.signature(getattr(diffusers, kind).__init__).parameters
    assert set(signature) - {"self"} == set({**NETWORKS, **DECODERS}[kind])


NETWORK_FAULTS = [
    ("ddpm", "unet", {"guidance_embeds": True}, "guidance_embeds"),
    ("ddpm", "unet", {"quantization_config": {"quant_method": "torchao"}}, "torchao"),
    ("ddpm", "unet", {"class_embed_type": "timestep"}, "class_embed_type"),
    ("ddpm", "unet", {"time_embedding_type": "fourier"}, "time_embedding_type"),
    ("ddpm", "unet", {"out_channels": 5}, "out_channels 5"),
    ("ddpm", "unet", {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
    ("ddpm", "unet", {"block_out_channels": "wide"}, "cannot build"),
    ("ddpm", "unet", {"norm_num_groups": 0}, "cannot build"),
    ("sd", "unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim"),
    ("sd", "unet", {"addition_embed_type": "image"}, "addition_embed_type"),
    ("sd", "unet", {"encoder_hid_dim_type": "ip_image_proj"}, "encoder_hid_dim_type"),
    ("sd", "unet", {"attention_type": "gated"}, "attention_type"),
    ("sd", "unet", {"num_class_embeds": 10}, "num_class_embeds"),
    ("sd", "unet", {"in_channels": 9}, "inpainting"),
    ("dit", "transformer", {"norm_type": "layer_norm"}, "norm_type"),
    ("pixart", "transformer", {"attention_type": "gated"}, "attention_type"),
    ("sd", "vae", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
    ("sd", "vae", {"shift_factor": 0.1}, "shift_factor"),
    ("sd", "vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}, "latents_mean"),
    ("sdxl", "vae", {"latents_mean": [0.0] * 4}, "latents_mean"),
    ("sd", "vae", {"scaling_factor": 0}, "scaling_factor"),
    ("sd", "vae", {"scaling_factor": "1"}, "scaling_factor"),
    ("sd", "vae", {"latent_channels": 16}, "latent_channels"),
    ("sd", "vae", {"spatial_compression": 8}, "spatial_compression"),
    ("sd", "text_encoder", {"model_type": "bert"}, "bert"),
    ("sd", "text_encoder", {"quantization_config": {"bits": 8}}, "quantization_config"),
    ("sd", "text_encoder", {"transformers_weights": "x.safetensors"}, "transformers_weights"),
    ("sd", "text_encoder", {"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
    ("ddpm", "scheduler", {"_class_name": "DDIMScheduler"}, "DDPMScheduler"),
]


@pytest.mark.parametrize(("family", "part", "change", "word"), NETWORK_FAULTS)
def test_what_is_not_understood_is_refused_by_name(copy_folder, family, part, change, word):
    """A class, key or value that would change the result."""
    folder = copy_folder(family)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    edit(folder / part / name, **change)
    if "_class_name" in change and part != "scheduler":
        edit(folder / "model_index.json", **{part: ["diffusers", change["_class_name"]]})
    if part == "scheduler":
        with pytest.raises(api.TfqError, match=word):
            DiffusersModel(source=str(folder)).sampler("ddim", 5)
        return
    check_refused(folder, word)


INDEX_FAULTS = [
    ("ddpm", {"_class_name": "ScoreSdeVePipeline"}, "ScoreSdeVePipeline"),
    ("ddpm", {"_class_name": ["my_code", "MyPipeline"]}, "MyPipeline"),
    ("ddpm", {"_class_name": None}, "None"),
    ("ddpm", {"_class_name": "DiffusionPipeline"}, "says not how it samples"),
    ("sd", {"_class_name": "StableDiffusionInpaintPipeline"}, "StableDiffusionInpaintPipeline"),
    ("sd", {"_class_name": "LatentConsistencyModelPipeline"}, "LatentConsistencyModelPipeline"),
    ("sd", {"controlnet": ["diffusers", "ControlNetModel"]}, "controlnet"),
    ("sd", {"text_encoder": ["transformers", "BertModel"]}, "BertModel"),
    ("sd", {"tokenizer": ["transformers", "BertTokenizer"]}, "BertTokenizer"),
    ("sd", {"unet": ["diffusers", "UNet2DModel"]}, "UNet2DModel"),
    ("sd", {"text_encoder": [None, None]}, "text_encoder"),
    ("sdxl", {"requires_aesthetics_score": True}, "requires_aesthetics_score"),
]


@pytest.mark.parametrize(("family", "change", "word"), INDEX_FAULTS)
def test_pipelines_that_are_not_understood_are_refused(copy_folder, family, change, word):
    """By class, component or option."""
    folder = copy_folder(family)
    edit(folder / "model_index.json", **change)
    check_refused(folder, str(folder), word)


def test_what_is_left_out_is_told(copy_folder, caplog):
    """A safety checker blackens images in diffusers; it is said that it does not here."""
    folder = copy_folder("sd")
    edit(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
    )
    for _ in range(2):
        digest(folder)
    told = [one.getMessage() for one in caplog.records if "safety_checker" in one.getMessage()]
    assert 1 == len(told)


def test_an_adapter_beside_the_weights_is_refused(copy_folder):
    """Nothing would apply it, or only with another package installed."""
    folder = copy_folder("sd")
    (folder / "text_encoder" / "adapter_config.json").write_text("{}")
    check_refused(folder, "adapter_config.json")


def test_a_network_without_a_scheduler_is_refused(copy_folder):
    """Nobody guesses the noise that it was trained on."""
    folder = copy_folder("flat")
    (folder / "scheduler_config.json").unlink()
    with pytest.raises(api.AssetError, match=r"scheduler_config\.json"):
        DiffusersModel(source=str(folder)).sampler("ddim", 5)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[" * 100_000, "nested"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "nested"),
        ('{"in_channels": NaN}', "NaN"),
        ('{"in_channels": 3, "in_channels": 4}', "twice"),
        (" " * (17 << 20), "bytes"),
        ("[1]", "object"),
        ("\udcff", "UTF-8"),
        ("\ufeff{}", "byte order mark"),
        ("{\0}\0", "JSON"),
    ],
)
def test_hostile_json_is_a_sentence(copy_folder, content, word):
    """Deep, huge, ambiguous or no JSON."""
    folder = copy_folder("ddpm")
    (folder / "unet" / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    check_refused(folder, "config.json", word)
