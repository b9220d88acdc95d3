"""Small CompVis models of each layout: what they compute, and their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import save_file

from tfq_bench_diffusers.convert import FAMILIES, Family

from .compvis_autoencoder import decode, encode
from .compvis_layers import GROUPS, Spec
from .compvis_unet import unet

SPECS = {
    "ldm4-bedroom": {
        "channels": 8,
        "multipliers": (1, 2, 3, 4),
        "attention_at": (2, 4, 8),
        "head_channels": 4,
    },
    "ldm8-church": {
        "channels": 8,
        "multipliers": (1, 2, 2, 4, 4),
        "attention_at": (1, 2, 4, 8),
        "latents": 4,
        "heads": 4,
        "film": True,
        "residual_resampling": True,
        "kl": True,
        "decoder_channels": (4, 8, 8, 8),
    },
    "ldm4-imagenet": {
        "channels": 8,
        "multipliers": (1, 2, 3, 5),
        "attention_at": (2, 4, 8),
        "heads": 1,
        "context": 6,
    },
}

CLASSES = 5
SIDE = 16
SCALE = 0.22


def shrunk(name: str, spec: Spec) -> Family:
    """The published family in small: the same blocks in the same places."""
    family = FAMILIES[name]
    widths = [spec.channels * one for one in spec.multipliers]
    network = {
        **family.network,
        "sample_size": SIDE,
        "block_out_channels": widths,
        "norm_num_groups": GROUPS,
    }
    if name == "ldm4-bedroom":
        network["attention_head_dim"] = spec.head_channels
    if name == "ldm8-church":
        network["attention_head_dim"] = [width // spec.heads for width in widths]
        network["attn_norm_num_groups"] = GROUPS
    if spec.context:
        network["cross_attention_dim"] = spec.context
    decoder = {
        **family.decoder,
        "sample_size": SIDE * 4,
        "block_out_channels": list(spec.decoder_channels),
        "norm_num_groups": GROUPS,
    }
    if not spec.kl:
        decoder["num_vq_embeddings"] = spec.codes
    return replace(family, network=network, decoder=decoder, classes=CLASSES if spec.context else 0)


@dataclass(frozen=True)
class Original:
    """A small CompVis model: what it computes, and its checkpoint."""

    spec: Spec
    family: Family

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy of the checkpoint's tensors, with the tables of the noise schedule."""
        low, high = self.family.beta_start**0.5, self.family.beta_end**0.5
        betas = torch.linspace(low, high, 1000, dtype=torch.float64) ** 2
        more = {"betas": betas.float(), "alphas_cumprod": (1 - betas).cumprod(0).float()}
        if self.family.scaled:
            more["scale_factor"] = torch.tensor(SCALE)
        return {**self.spec.tensors, **more}

    def predict(self, x, t, context=None):
        """The U-Net's output in float64."""
        return unet(self.spec, x.double(), t, context)

    def decode(self, latents):
        """Images in float64, about [-1, 1], of latents as the U-Net knows them."""
        return decode(self.spec, latents.double() / (SCALE if self.family.scaled else 1.0))

    def encode(self, pixels):
        """What the encoder says of images, in float64."""
        return encode(self.spec, pixels.double())

    def classes(self) -> torch.Tensor:
        """`[classes, width]`."""
        name = "cond_stage_model.embedding.weight"
        return self.spec.tensors.read(name, CLASSES, self.spec.context)

    def save(self, path, tensors=None):
        """Writes a checkpoint; gives its path."""
        given = self.tensors if tensors is None else tensors
        if path.suffix == ".safetensors":
            save_file({name: value.contiguous() for name, value in given.items()}, path)
        else:
            torch.save({"epoch": 3, "global_step": 7, "state_dict": given}, path)
        return path


@pytest.fixture(scope="session")
def originals():
    """A small model of each layout, with every tensor that one run through it reads."""
    made = {}
    for name, numbers in SPECS.items():
        spec = Spec(**numbers)
        one = Original(spec, shrunk(name, spec))
        context = one.classes()[:1, None] if spec.context else None
        x = torch.zeros(1, spec.latents, SIDE, SIDE)
        one.predict(x, torch.zeros(1), context)
        one.decode(x)
        one.encode(torch.zeros(1, 3, 32, 32))
        made[name] = one
    return made


@pytest.fixture(params=sorted(SPECS))
def original(request, originals) -> Original:
    """Each in turn."""
    return originals[request.param]
