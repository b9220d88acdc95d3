"""What the loader opens of a folder's weights is what is hashed."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from tfq_bench import api
from tfq_bench_diffusers.model import DiffusersModel
from tfq_bench_diffusers.weights import find_weights

from .changed_folders import PICKLED, SAFE, check_refused, digest, pickle_weights, weights_of


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
