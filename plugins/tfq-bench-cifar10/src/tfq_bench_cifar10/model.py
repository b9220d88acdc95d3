"""The embedded model, as the host sees it."""

from __future__ import annotations

import hashlib
import json
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
PROVENANCE = WEIGHTS / "provenance.json"


class Cifar10Model:
    """Unconditional DDPM on CIFAR-10; see the model card in the distribution's README."""

    latent_shape = (3, 32, 32)
    dtype = torch.float32

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the embedded weights.

        Raises:
            AssetError: they are missing, or not those that the provenance describes.
        """
        return hashlib.sha256(_embedded()).hexdigest()

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """The network with the embedded float16 weights, converted to `dtype`.

        Raises:
            AssetError: as for `digest`.
        """
        from safetensors.torch import load

        weights = load(_embedded())
        # Made without values and given converted ones: a diffusers network warns when it is cast,
        # and fresh values would be drawn from torch's global generator.
        with torch.device("meta"):
            network = build_unet()
        converted = {name: value.to(device, dtype) for name, value in weights.items()}
        network.load_state_dict(converted, assign=True)
        return network.eval().requires_grad_(False)

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

    def guidance(self, *, device: str) -> None:
        """None: the model is unconditional."""

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 `[B, 32, 32, 3]` on the CPU; values are rounded, not truncated."""
        images = latents.clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
        return images.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()

    def reference(self, extractor: str) -> Path | None:
        """Statistics of the 50,000 training images for `extractor`, if they are embedded."""
        path = WEIGHTS / f"reference-{extractor}.safetensors"
        return path if path.exists() else None


def _embedded() -> bytes:
    """The weights as a safetensors file, checked against the digest in their provenance."""
    try:
        content = UNET.read_bytes()
        stated = json.loads(PROVENANCE.read_text("utf-8"))["weights_sha256"]
    except FileNotFoundError as error:
        raise api.AssetError(
            f"the embedded weights are missing, expected {error.filename}; reinstall "
            "tfq-bench-cifar10."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise api.AssetError(
            f"{PROVENANCE}: expected JSON with the key weights_sha256, found none "
            f"({type(error).__name__}); reinstall tfq-bench-cifar10."
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise api.AssetError(
            f"{UNET}: expected the SHA-256 {stated} of {PROVENANCE.name}, found {found}. The file "
            "was changed or cut off; reinstall tfq-bench-cifar10."
        )
    return content
