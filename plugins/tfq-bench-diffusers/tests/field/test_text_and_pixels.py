"""Text encoders and decoders: what they cannot do is refused, and their precision is their own."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tfq_bench import api
from tfq_bench_diffusers.decode import to_pixels
from tfq_bench_diffusers.model import DiffusersModel

from .changed_folders import SAFE, edit


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
