"""Tensors that are not the network's are refused by name, in the plan."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tfq_bench import api
from tfq_bench_diffusers.model import DiffusersModel

from .changed_folders import PICKLED, SAFE, check_refused, digest, edit, weights_of


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
