"""From latents to pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.components import LATENT_CHANNELS
from tfq_bench_diffusers.folders import DECODERS, Folder
from tfq_bench_diffusers.loading import load_network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Decoder", "to_pixels"]


class Decoder:
    """A model's VQ or KL autoencoder, in float32: SDXL's overflows in float16.

    Args:
        folder: the autoencoder's. config: its configuration, see `components.check_decoder`.

    Raises:
        AssetError: its weights are missing or not those of its configuration.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        kind = str(config["_class_name"])
        self._network: Any = load_network(folder, kind, config, dtype=torch.float32)
        # VQ models older than the option were trained on latents as they are; the default that
        # diffusers fills in is that of Stable Diffusion (its issue 6725).
        plain = kind == "VQModel" and "scaling_factor" not in config
        self._scale = 1.0 if plain else float(self._network.config.scaling_factor)
        # SDXL's pipeline alone reads these; `check_decoder` refuses them elsewhere.
        channels = config.get("latent_channels", LATENT_CHANNELS[kind])
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        self._mean = torch.tensor(mean or [0.0] * channels)[:, None, None]
        self._deviation = torch.tensor(deviation or [1.0] * channels)[:, None, None]

    @staticmethod
    def find(folder: Folder) -> Path | None:
        """Where a model keeps its autoencoder; None when it works in pixels."""
        return folder.part(*DECODERS)

    @staticmethod
    def factor(config: dict[str, Any]) -> int:
        """Pixels per latent position along one side."""
        return int(2 ** (len(config.get("block_out_channels", (64,))) - 1))

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """float32 `[B, C, H, W]`, about [-1, 1], image by image to save memory."""
        device = latents.device
        self._network.to(device)
        scaled = latents.float() * self._deviation.to(device) / self._scale + self._mean.to(device)
        return torch.cat([self._network.decode(one[None]).sample for one in scaled])


def to_pixels(images: Tensor) -> Tensor:
    """uint8 `[B, H, W, 3]` on the CPU from values in [-1, 1]; rounded, as diffusers does.

    Raises:
        CellError: values that are not finite, which no pixel can say.
    """
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        odd = [str(number) for number, good in enumerate(finite.tolist()) if not good]
        raise api.CellError(
            f"the decoder gave values that are not finite for {len(odd)} of {len(images)} images "
            f"of the batch (number {', '.join(odd[:8])}{', ...' if len(odd) > 8 else ''} from 0); "
            "expected pixels. Its weights are damaged, or the latents are out of range."
        )
    colours = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    scaled = (colours.float() / 2 + 0.5).clamp(0.0, 1.0).mul(255).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
