"""Tiny models of every family, saved in the folder format of the hub."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import diffusers
import pytest
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WORDS = 64
BLOCKS = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
}
DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test may open a connection."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a test tried to open a connection: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory):
    """Saves a tiny model of a family, once, and gives its folder."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family) / "model"
            torch.manual_seed(0)
            _FAMILIES[family](folder)
            made[family] = folder
        return made[family]

    return make


def unet(**more):
    """An unconditional U-Net."""
    return diffusers.UNet2DModel(
        **BLOCKS,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        **more,
    )


def conditional_unet(**more):
    """A U-Net with cross-attention."""
    return diffusers.UNet2DConditionModel(
        **BLOCKS,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        **more,
    )


def autoencoder():
    """From 16x16 pixels to 8x8 latents."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Knows single letters."""
    folder.mkdir(parents=True)
    letters = [chr(97 + i) for i in range(26)]
    tokens = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=16)


def clip_config(width: int) -> CLIPTextConfig:
    """Two layers."""
    return CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=width,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )


def transformer(kind, **more):
    """A diffusion transformer that learns its variance."""
    return kind(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        norm_num_groups=4,
        **more,
    )


def _ddpm(folder: Path) -> None:
    pipeline = diffusers.DDPMPipeline(
        unet=unet(), scheduler=diffusers.DDPMScheduler(beta_schedule="linear")
    )
    pipeline.save_pretrained(folder)


def _flat(folder: Path) -> None:
    """As old repositories have it: everything at the top, weights pickled."""
    unet().save_pretrained(folder, safe_serialization=False)
    diffusers.DDPMScheduler(beta_schedule="linear").save_pretrained(folder)


def _ldm(folder: Path) -> None:
    decoder = diffusers.VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=4,
        sample_size=16,
    )
    unet().save_pretrained(folder / "unet")
    decoder.save_pretrained(folder / "vqvae")
    diffusers.DDIMScheduler(**DIFFUSION, clip_sample=False).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "LDMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def _sd(folder: Path) -> None:
    pipeline = diffusers.StableDiffusionPipeline(
        unet=conditional_unet(cross_attention_dim=8),
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config(8)),
        tokenizer=clip_tokenizer(folder.parent / "tokenizer"),
        scheduler=diffusers.PNDMScheduler(**DIFFUSION, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def _sdxl(folder: Path) -> None:
    network = conditional_unet(
        cross_attention_dim=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        unet=network,
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config(8)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(8)),
        tokenizer=clip_tokenizer(folder.parent / "tokenizer"),
        tokenizer_2=clip_tokenizer(folder.parent / "tokenizer_2"),
        scheduler=diffusers.EulerDiscreteScheduler(**DIFFUSION, timestep_spacing="leading"),
    )
    pipeline.save_pretrained(folder)


def _dit(folder: Path) -> None:
    network = transformer(diffusers.DiTTransformer2DModel, num_embeds_ada_norm=10)
    pipeline = diffusers.DiTPipeline(
        transformer=network,
        vae=autoencoder(),
        scheduler=diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    pipeline.save_pretrained(folder)


def _pixart(folder: Path) -> None:
    network = transformer(
        diffusers.PixArtTransformer2DModel, cross_attention_dim=16, caption_channels=8
    )
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    letters += [(chr(97 + i), -3.0) for i in range(26)]
    config = T5Config(
        vocab_size=WORDS, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    pipeline = diffusers.PixArtAlphaPipeline(
        transformer=network,
        vae=autoencoder(),
        text_encoder=T5EncoderModel(config),
        tokenizer=T5Tokenizer(vocab=letters),
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_schedule="linear"),
    )
    pipeline.save_pretrained(folder)


_FAMILIES = {
    "ddpm": _ddpm,
    "flat": _flat,
    "ldm": _ldm,
    "sd": _sd,
    "sdxl": _sdxl,
    "dit": _dit,
    "pixart": _pixart,
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Hostile text that was logged or printed does not stop pytest-xdist, which sends UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
