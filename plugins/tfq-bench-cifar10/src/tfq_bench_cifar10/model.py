"""The embedded model, as the host sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tfq_bench import api
from tfq_bench_cifar10.network import build_unet
from tfq_bench_cifar10.sampler import Ddim

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Cifar10Model"]

WEIGHTS = Path(__file__).parent / "weights"
UNET = WEIGHTS / "unet-ddpm.safetensors"


class Cifar10Model:
    """Unconditional DDPM on CIFAR-10; see the model card in the distribution's README."""

    latent_shape = (3, 32, 32)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the embedded weights."""
        try:
            return hashlib.sha256(UNET.read_bytes()).hexdigest()
        except FileNotFoundError:
            raise api.AssetError(
                f"the embedded weights are missing, expected {UNET}; reinstall tfq-bench-cifar10."
            ) from None

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """The network with the embedded float16 weights, converted to `dtype`."""
        from safetensors.torch import load_file

        network = build_unet()
        network.load_state_dict(load_file(UNET))
        return network.to(device, dtype).eval().requires_grad_(False)

    def predict(
        self,
        network: nn.Module,
        x: Tensor,
        timestep: Tensor,
        condition: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        """Epsilon `[B, 3, 32, 32]`."""
        prediction: Tensor = network(x, timestep, return_dict=False)[0]
        return prediction

    def topology(self, network: nn.Module) -> api.Topology:
        """Layers, blocks and temporal modules in execution order."""
        from tfq_bench_cifar10.topology import unet_topology

        return unet_topology(network)

    def sampler(self, name: str, steps: int) -> Ddim:
        """`ddim` or `ddim-quadratic`; SuiteError for a number of steps it cannot place."""
        try:
            return Ddim(name, steps)
        except ValueError as error:
            raise api.SuiteError(f"[sampling]: {error}") from error

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Nothing: the model is unconditional."""
        return {}

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 `[B, 32, 32, 3]` on the CPU; values are rounded, not truncated."""
        images = latents.clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
        return images.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()

    def reference(self, extractor: str) -> Path | None:
        """Statistics of the 50,000 training images for `extractor`, if they are embedded."""
        path = WEIGHTS / f"reference-{extractor}.safetensors"
        return path if path.exists() else None
