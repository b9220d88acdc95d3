"""Model folders that a test changes, and their refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tfq_bench import api
from tfq_bench_diffusers.model import DiffusersModel

SAFE = "diffusion_pytorch_model.safetensors"
PICKLED = "diffusion_pytorch_model.bin"


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
