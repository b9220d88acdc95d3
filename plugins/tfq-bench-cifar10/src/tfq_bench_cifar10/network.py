"""The embedded network and its noise schedule, as constants of code.

A diffusers `UNet2DModel` of 6.5 M parameters: the DDPM architecture in small, with attention at
16x16, predicting epsilon over 1,000 linear-beta steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["TRAIN_STEPS", "alphas_cumprod", "build_unet"]

TRAIN_STEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02


def build_unet(dropout: float = 0.0) -> UNet2DModel:
    """The network with fresh weights, taking `[B, 3, 32, 32]` in [-1, 1] and t in 0..999."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=64,
        norm_num_groups=32,
        dropout=dropout,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        norm_eps=1e-6,
    )


def alphas_cumprod() -> torch.Tensor:
    """float64 `[1000]`, the cumulative product of 1 - beta_t (DDPM, section 4)."""
    betas = torch.linspace(BETA_START, BETA_END, TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)
