"""From latents to pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.folders import DECODERS, Folder, read_json
from tfq_bench_diffusers.quiet import no_bars

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Decoder", "to_pixels"]


class Decoder:
    """A model's VQ or KL autoencoder, in float32: SDXL's overflows in float16.

    Args:
        folder: the autoencoder's.

    Raises:
        AssetError: its weights are missing or not those of its configuration.
    """

    def __init__(self, folder: Path) -> None:
        import diffusers

        try:
            stated = read_json(folder / "config.json")
            kind = stated["_class_name"]
            with no_bars():
                self._network: Any = getattr(diffusers, kind).from_pretrained(
                    folder, dtype=torch.float32, local_files_only=True
                )
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise api.AssetError(
                f"{folder}: expected an autoencoder of diffusers, found another thing: {error}"
            ) from error
        self._network.eval().requires_grad_(False)
        config = self._network.config
        # VQ models older than the option were trained on latents as they are; the default that
        # diffusers fills in is that of Stable Diffusion.
        plain = kind == "VQModel" and "scaling_factor" not in stated
        self._scale = 1.0 if plain else float(config.scaling_factor)
        self._shift = float(getattr(config, "shift_factor", None) or 0.0)

    @staticmethod
    def find(folder: Folder) -> Path | None:
        """Where a model keeps its autoencoder; None when it works in pixels."""
        return folder.part(*DECODERS)

    @staticmethod
    def factor(folder: Path) -> int:
        """Pixels per latent position along one side."""
        config = read_json(folder / "config.json")
        return int(2 ** (len(config["block_out_channels"]) - 1))

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """float32 `[B, 3, H, W]`, about [-1, 1], image by image to save memory."""
        self._network.to(latents.device)
        scaled = latents.float() / self._scale + self._shift
        return torch.cat([self._network.decode(one[None]).sample for one in scaled])


def to_pixels(images: Tensor) -> Tensor:
    """uint8 `[B, H, W, 3]` on the CPU from values in [-1, 1]; rounded, not truncated."""
    colours = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    scaled = colours.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
