"""The published latent diffusion models (arXiv:2112.10752) that have no repository on the hub.

Their shapes are those of the configurations that were published with the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a checkpoint cannot say of itself.

    Args:
        network, decoder: configurations as diffusers writes them, `_class_name` included.
        beta_start, beta_end: of the noise schedule, linear in the square root of beta.
        scaled: latents are divided by their deviation, which the checkpoint then holds.
        classes: rows of the class embedding, the last of which is no class; 0 without classes.
    """

    summary: str
    network: Mapping[str, Any]
    decoder: Mapping[str, Any]
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    scaled: bool = False
    classes: int = 0

    @property
    def scheduler(self) -> dict[str, Any]:
        """DDIM as these models were sampled: from timestep 1 on, down to the first signal level."""
        return {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "prediction_type": "epsilon",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": "leading",
        }


LDM_4: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "UNet2DModel",
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 2,
        "block_out_channels": [224, 448, 672, 896],
        "attention_head_dim": 32,
        "down_block_types": ["DownBlock2D"] + ["AttnDownBlock2D"] * 3,
        "up_block_types": ["AttnUpBlock2D"] * 3 + ["UpBlock2D"],
    }
)

LDM_8: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "UNet2DModel",
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": [192, 384, 384, 768, 768],
        # Eight heads everywhere; see `tfq_bench_diffusers.heads`.
        "attention_head_dim": [24, 48, 48, 96, 96],
        "down_block_types": ["AttnDownBlock2D"] * 4 + ["DownBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D"] + ["AttnUpBlock2D"] * 4,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 32,
    }
)

LDM_4_CLASSES: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 2,
        "block_out_channels": [192, 384, 576, 960],
        "attention_head_dim": 1,  # diffusers takes it for the number of heads
        "cross_attention_dim": 512,
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
        "up_block_types": ["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"],
    }
)

VQ_4: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "VQModel",
        "sample_size": 256,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 3,
        "vq_embed_dim": 3,
        "num_vq_embeddings": 8192,
        "layers_per_block": 2,
        "block_out_channels": [128, 256, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
    }
)

KL_8: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "AutoencoderKL",
        "sample_size": 256,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
)


def _ldm4(data: str) -> Family:
    return Family(
        summary=f"LDM-4, {data} 256x256, unconditional, VQ-f4", network=LDM_4, decoder=VQ_4
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "ldm4-bedroom": _ldm4("LSUN-Bedrooms"),
        "ldm4-ffhq": _ldm4("FFHQ"),
        "ldm4-celeba": _ldm4("CelebA-HQ"),
        "ldm8-church": Family(
            summary="LDM-8, LSUN-Churches 256x256, unconditional, KL-f8",
            network=LDM_8,
            decoder=KL_8,
            beta_end=0.0155,
            scaled=True,
        ),
        "ldm4-imagenet": Family(
            summary="LDM-4, ImageNet 256x256, class-conditional, VQ-f4",
            network=LDM_4_CLASSES,
            decoder=VQ_4,
            classes=1001,
        ),
    }
)
