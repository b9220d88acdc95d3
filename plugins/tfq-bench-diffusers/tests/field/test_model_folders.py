"""What is read of a model's folder is hashed; what is not understood in it is refused by name."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tfq_bench import api
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench_diffusers.decode import to_pixels
from tfq_bench_diffusers.known_keys import DECODERS, NETWORKS
from tfq_bench_diffusers.model import DiffusersModel
from tfq_bench_diffusers.weights import find_weights

SAFE = "diffusion_pytorch_model.safetensors"
PICKLED = "diffusion_pytorch_model.bin"


@pytest.fixture
def copy_folder(make_folder, tmp_path):
    """A family's folder to be changed."""

    def copy(family: str) -> Path:
        return shutil.copytree(make_folder(family), tmp_path / family)

    return copy


def edit(path: Path, **changes) -> None:
    """Set entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def digest(folder: Path) -> str:
    """What a plan asks of a model: that it is understood, and what it is."""
    return DiffusersModel(source=str(folder)).digest


def check_refused(folder: Path, *words: str) -> None:
    """One line that has these words, in the plan and when the network is loaded or sampled."""
    with pytest.raises(api.TfqError) as caught:
        digest(folder)
    told = str(caught.value)
    assert all(word in told for word in words), told
    assert "\n" not in told
    assert "meta tensor" not in told


def pickle_weights(unet: Path) -> None:
    """The same weights as a pickle, and no safetensors."""
    torch.save(load_file(unet / SAFE), unet / PICKLED)
    (unet / SAFE).unlink()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The network's, as the model loads it."""
    model = DiffusersModel(source=str(folder))
    return dict(model.load(device="cpu", dtype=torch.float32).state_dict())


# What the loader opens is what is hashed.


def test_stray_files_hide_no_pickled_weights(copy_folder):
    """Zeroed weights are another model, whatever safetensors lie beside them."""
    folder = copy_folder("ddpm")
    unet = folder / "unet"
    pickle_weights(unet)
    before = digest(folder)
    for name in ("pytorch_lora_weights.safetensors", "model.safetensors", "other.bin"):
        save_file({"lora": torch.ones(2)}, unet / name)
    assert before == digest(folder)
    held = torch.load(unet / PICKLED, weights_only=True)
    torch.save({name: value * 0 for name, value in held.items()}, unet / PICKLED)
    assert before != digest(folder)
    loaded = weights_of(folder)
    expected = diffusers.UNet2DModel.from_pretrained(unet).state_dict()
    assert all(torch.equal(expected[name], value) for name, value in loaded.items())
    assert all(not value.any() for value in loaded.values())


def test_safetensors_come_before_a_pickle(copy_folder):
    """A pickle that is not opened is not hashed either, nor variants."""
    folder = copy_folder("ddpm")
    before = digest(folder)
    (folder / "unet" / PICKLED).write_bytes(b"nothing")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"nothing")
    (folder / "unet" / "notes.json").write_text("{}")
    assert before == digest(folder)


def test_an_index_comes_before_an_undivided_file_in_diffusers(copy_folder):
    """As in its loader: the shards are the model, the undivided file is not read."""
    folder = copy_folder("ddpm")
    unet = folder / "unet"
    tensors = load_file(unet / SAFE)
    network = diffusers.UNet2DModel.from_pretrained(unet)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    network.save_pretrained(unet, max_shard_size="8KB")
    save_file(tensors, unet / SAFE)
    before = digest(folder)
    expected = diffusers.UNet2DModel.from_pretrained(unet).state_dict()
    loaded = weights_of(folder)
    assert all(torch.equal(expected[name], value) for name, value in loaded.items())
    assert not all(torch.equal(tensors[name], value) for name, value in loaded.items())
    (unet / SAFE).write_bytes(b"other")
    assert before == digest(folder)


def test_transformers_prefers_the_undivided_file(copy_folder):
    """The other way round than diffusers, and so are the text encoders' files hashed."""
    folder = copy_folder("sd") / "text_encoder"
    (folder / "model.safetensors.index.json").write_text("{")
    assert [folder / "model.safetensors"] == list(find_weights(folder, "transformers").files)


def test_two_pickled_forms_are_ambiguous(copy_folder):
    """Neither is taken in silence."""
    folder = copy_folder("ddpm")
    pickle_weights(folder / "unet")
    (folder / "unet" / f"{PICKLED}.index.json").write_text('{"weight_map": {}}')
    check_refused(folder, PICKLED, f"{PICKLED}.index.json", "not clear which")


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}']
)
def test_broken_index_is_refused(copy_folder, index):
    """Also one that leads out of the folder."""
    folder = copy_folder("ddpm")
    (folder / "unet" / f"{SAFE}.index.json").write_text(index)
    check_refused(folder, f"{SAFE}.index.json")


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_files_that_change_behind_the_digest_are_noticed(copy_folder, part):
    """Decoder and text encoders are loaded when they are first needed."""
    folder = copy_folder("sd")
    model = DiffusersModel(source=str(folder))
    before = model.digest
    path = folder / part / ("model.safetensors" if part == "text_encoder" else SAFE)
    tensors = load_file(path)
    save_file({name: value * 2 for name, value in tensors.items()}, path, {"format": "pt"})
    with pytest.raises(api.AssetError, match="were changed while they were in use"):
        _ = (
            model.decode(torch.zeros(1, 4, 8, 8))
            if part == "vae"
            else model.conditions([0], device="cpu")
        )
    assert before != digest(folder)


# Tensors that are not the network's.


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: {f"net.{k}": v for k, v in one.items()}, ["missing", "prefix 'net.'"]),
        (
            lambda one: {f"base_model.model.{k}": v for k, v in one.items()},
            ["missing", "prefix 'base_model.model.'"],
        ),
        (
            lambda one: {k: v for k, v in one.items() if k != "conv_in.weight"},
            ["1 missing", "'conv_in.weight'"],
        ),
        (lambda one: {**one, "lora.up": torch.ones(2)}, ["1 unexpected", "'lora.up'"]),
        (
            lambda one: {**one, "conv_out.bias": torch.ones(5)},
            ["another shape", "'conv_out.bias' (5,), expected (3,)"],
        ),
        (
            lambda one: {**one, "conv_in.weight": one["conv_in.weight"].to(torch.int8)},
            ["conv_in.weight", "already quantized"],
        ),
        (lambda _: {"a": torch.ones(1)}, ["missing", "'a'"]),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy_folder, change, words, form):
    """In the plan, from the files' headers, and before anything is loaded."""
    folder = copy_folder("ddpm")
    tensors = change(load_file(folder / "unet" / SAFE))
    (folder / "unet" / SAFE).unlink()
    if form == "safetensors":
        save_file(tensors, folder / "unet" / SAFE)
    else:
        torch.save(tensors, folder / "unet" / PICKLED)
    check_refused(folder, str(folder / "unet"), *words)
    with pytest.raises(api.AssetError, match=words[0].replace("(", r"\(")):
        weights_of(folder)


def test_decoders_tensors_are_checked_in_the_plan(copy_folder):
    """And names from before diffusers 0.12 are known."""
    folder = copy_folder("sd")
    path = folder / "vae" / SAFE
    tensors = load_file(path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in tensors.items():
        for new, former in old.items():
            name = name.replace(f"mid_block.attentions.0.{new}", f"mid_block.attentions.0.{former}")
        renamed[name] = value
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path)
    assert 64 == len(digest(folder))
    del renamed["decoder.conv_out.bias"]
    save_file(renamed, path)
    check_refused(folder, str(folder / "vae"), "'decoder.conv_out.bias'")


def test_text_encoders_tensors_are_never_made_up(copy_folder):
    """Where transformers fills in random values and warns, they are named."""
    folder = copy_folder("sd")
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    lost = next(name for name in tensors if "fc1.weight" in name)
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "pt"})
    model = DiffusersModel(source=str(folder))
    with pytest.raises(api.AssetError, match=r"1 missing: '.*fc1\.weight'"):
        model.conditions([0], device="cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: {k: v.to(torch.int8) if "fc1" in k else v for k, v in one.items()},
         ["fc1.bias", "already quantized"]),
        (lambda one: {k: v.to(torch.float8_e4m3fn) if "fc2" in k else v for k, v in one.items()},
         ["fc2.bias", "F8_E4M3"]),
    ],
)  # fmt: skip
def test_codes_of_a_text_encoder_are_no_weights(copy_folder, change, words):
    """Its library casts them to float and goes on; the plan names them."""
    folder = copy_folder("sd")
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(16)}, path)
    assert 64 == len(digest(folder))  # as old files have it
    save_file(change(tensors), path)
    check_refused(folder, "model.safetensors", *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 1}, r"unexpected: '.*layers\.1\."),
        ({"vocab_size": 60}, r"of another shape: '.*token_embedding\.weight'"),
    ],
)
def test_text_encoders_of_another_shape_are_named(copy_folder, change, words):
    """Fewer layers than the file has, where transformers only warns; other sizes."""
    folder = copy_folder("sd")
    edit(folder / "text_encoder" / "config.json", **change)
    with pytest.raises(api.AssetError, match=words):
        DiffusersModel(source=str(folder)).conditions([0], device="cpu")


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


def test_a_pickle_with_code_is_not_run(copy_folder, tmp_path):
    """Reading weights runs nothing."""
    folder = copy_folder("ddpm")
    (folder / "unet" / SAFE).unlink()

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"a": Evil()}, folder / "unet" / PICKLED)
    check_refused(folder, PICKLED, "a file of tensors and nothing else")
    assert not (tmp_path / "ran").exists()


# Configurations.


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


# Text.


def test_tokens_without_a_place_are_refused(copy_folder):
    """A tokenizer that says no length, or a longer one than the encoder has places for."""
    folder = copy_folder("sd")
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=10**30)
    with pytest.raises(api.AssetError, match="model_max_length"):
        DiffusersModel(source=str(folder)).conditions([0], device="cpu")


def test_missing_tokenizer_files_are_refused(copy_folder):
    """In the plan or when prompts are encoded, never with a traceback."""
    folder = copy_folder("sd")
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(api.AssetError, match="tokenizer"):
        DiffusersModel(source=str(folder)).conditions([0], device="cpu")


def test_networks_precision_does_not_change_the_conditions(copy_folder):
    """Text encoders stay in float32, whatever their configuration or the option says."""
    folder = copy_folder("sd")
    expected = DiffusersModel(source=str(folder)).conditions([0], device="cpu")
    edit(folder / "text_encoder" / "config.json", dtype="float16", torch_dtype="float16")
    model = DiffusersModel(source=str(folder), dtype="bfloat16")
    assert torch.equal(expected["text"], model.conditions([0], device="cpu")["text"])


# Pixels.


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_no_pixels(value):
    """One of them is enough, and its image is named."""
    images = torch.zeros(3, 3, 4, 4)
    images[1, 2, 3, 3] = value
    with pytest.raises(api.CellError, match=r"1 of 3 images .*number 1 from 0"):
        to_pixels(images)


def test_a_broken_decoder_fails_the_cell(copy_folder):
    """As after NaN got into its bias."""
    folder = copy_folder("sd")
    path = folder / "vae" / SAFE
    tensors = load_file(path)
    tensors["decoder.conv_out.bias"] *= float("nan")
    save_file(tensors, path)
    model = DiffusersModel(source=str(folder))
    with pytest.raises(api.CellError, match="2 of 2 images"):
        model.decode(torch.zeros(2, *model.latent_shape))


# Anything at all.

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from([1e-3, 1e30, "default", "scale_shift", "resnet", "", "positional"]),
    st.lists(st.integers(0, 9), max_size=3),
)


def test_fuzz_network_configurations(make_folder, tmp_path):
    """Loads as in diffusers, or is refused in one line with the configuration's path."""
    source = make_folder("ddpm")
    config = json.loads((source / "unet" / "config.json").read_text())
    folder = shutil.copytree(source, tmp_path / "mutated")
    keys = sorted({*NETWORKS["UNet2DModel"], "_class_name", "unheard_of"})
    seen = []

    @fuzz(25)
    @given(st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=2))
    def check(changes):
        (folder / "unet" / "config.json").write_text(json.dumps({**config, **changes}))
        model = DiffusersModel(source=str(folder))
        told = ""
        try:
            assert len(model.digest) == 64
            network = model.load(device="cpu", dtype=torch.float32)
            model.topology(network)
        except api.TfqError as error:
            told = str(error)
        if told:
            seen.append(False)
            named = ("mutated", "resolution", "UNet2DModel", *changes)
            assert any(word in told for word in named), told
            assert "\n" not in told
            return
        seen.append(True)
        if isinstance(changes.get("attention_head_dim"), list):
            return  # heads of each block, for converted checkpoints: diffusers builds no such thing
        expected = diffusers.UNet2DModel.from_pretrained(folder / "unet")
        x, t = torch.ones(1, 3, 8, 8), torch.tensor([300])
        with torch.no_grad():
            found = model.predict(network, x, t, model.conditions([0], device="cpu"))
            labels = model.conditions([0], device="cpu").get("labels")
            right = expected(x, t, class_labels=labels).sample[:, :3]
        torch.testing.assert_close(found, right, equal_nan=True)  # a sample of it fails by itself

    check()
    assert any(seen)
    assert not all(seen)
