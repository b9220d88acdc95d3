"""What is printed while a model loads: nothing."""

from __future__ import annotations

import diffusers
import pytest
import torch
import transformers
from huggingface_hub.utils import are_progress_bars_disabled

from tfq_bench_diffusers.model import DiffusersModel
from tfq_bench_diffusers.progress_bars import no_bars

LIBRARIES = (diffusers.utils.logging, transformers.utils.logging)


@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart"])
def test_text_models_load_without_bars(make_folder, name, capfd):
    """Network, text encoders and decoder print nothing, and other loading still does."""
    folder = make_folder(name)
    capfd.readouterr()
    model = DiffusersModel(source=str(folder), prompts="")
    model.load(device="cpu", dtype=torch.float32)
    model.conditions([0], device="cpu")
    model.decode(torch.zeros(1, *model.latent_shape))
    assert ("", "") == tuple(capfd.readouterr())
    encoder = transformers.T5EncoderModel if name == "pixart" else transformers.CLIPTextModel
    encoder.from_pretrained(folder / "text_encoder")
    assert "Loading weights" in capfd.readouterr().err


@no_bars()
def load_in_vain():
    """Looks at the settings inside, and fails."""
    assert not any(library.is_progress_bar_enabled() for library in LIBRARIES)
    raise KeyError


@pytest.mark.parametrize("shown", [True, False])
def test_settings_are_as_before(shown):
    """Also after an error, and where the user had turned bars off."""
    for library in LIBRARIES:
        assert library.is_progress_bar_enabled()
    try:
        if not shown:
            for library in LIBRARIES:
                library.disable_progress_bar()
        with pytest.raises(KeyError):
            load_in_vain()
        for library in LIBRARIES:
            assert shown == library.is_progress_bar_enabled()
        assert shown != are_progress_bars_disabled()
    finally:
        for library in LIBRARIES:
            library.enable_progress_bar()
