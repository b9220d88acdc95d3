"""The embedded models, as the host sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_cifar10 import embedded
from tfq_bench_cifar10.network import CLASSES, NETWORKS, NO_CLASS, betas, class_table
from tfq_bench_diffusers.samplers.classes import settings
from tfq_bench_diffusers.samplers.ddim import Ddim
from tfq_bench_diffusers.samplers.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench_cifar10.network import Network

__all__ = ["Cifar10Model", "conditional", "dit", "unconditional"]


def unconditional(*, dtype: str = "float32") -> Cifar10Model:
    """DDPM's network, which knows no classes."""
    return Cifar10Model(NETWORKS["unet"], dtype=dtype)


def conditional(*, guidance: float, dtype: str = "float32") -> Cifar10Model:
    """Stable Diffusion's network in small, told a class as a sequence of tokens."""
    return Cifar10Model(NETWORKS["conditional"], guidance=guidance, dtype=dtype)


def dit(*, guidance: float, dtype: str = "float32") -> Cifar10Model:
    """A small DiT, told a class as its index."""
    return Cifar10Model(NETWORKS["dit"], guidance=guidance, dtype=dtype)


def scheduler_config() -> dict[str, Any]:
    """What all three were trained for, as diffusers would store it.

    The betas are listed because numpy, which computes `linear`, rounds some of them otherwise.
    """
    return {
        "_class_name": "DDIMScheduler",
        "trained_betas": betas().tolist(),
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "set_alpha_to_one": True,
    }


class Cifar10Model:
    """One of the networks with its embedded weights; see the model cards in the README.

    Args:
        guidance: scale of classifier-free guidance, 1 for none; of no effect without classes.
        dtype: what the network computes in, a name of torch's.
    """

    latent_shape = (3, 32, 32)

    def __init__(self, network: Network, *, guidance: float = 1.0, dtype: str = "float32") -> None:
        self.network = network
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._scale = guidance
        self._tables: dict[str, Tensor] = {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the embedded weights.

        Raises:
            AssetError: they are missing, or not those that the provenance describes.
        """
        return hashlib.sha256(embedded.checked_file(self.network)).hexdigest()

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """The network with the embedded float16 weights, converted to `dtype`.

        Raises:
            AssetError: as for `digest`.
        """
        weights, _ = embedded.load_weights(self.network)
        with torch.random.fork_rng(devices=[]):  # fresh values, which are replaced at once
            network = self.network.build(0.0)
        # Given converted values, because a diffusers network warns when it is cast.
        converted = {name: value.to(device, dtype) for name, value in weights.items()}
        network.load_state_dict(converted, assign=True)
        for module in network.modules():
            for name, table in module.named_buffers(recurse=False):  # positions, computed
                setattr(module, name, table.to(device))
        return network.eval().requires_grad_(False)

    def predict(
        self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """Epsilon, float32 `[B, 3, 32, 32]`."""
        told = {
            name: value.to(self.dtype) if value.is_floating_point() else value
            for name, value in condition.items()
        }
        prediction: Tensor = network(x.to(self.dtype), timestep, **told, return_dict=False)[0]
        return prediction.float()

    def topology(self, network: nn.Module) -> api.Topology:
        """Layers, blocks and temporal modules in execution order."""
        from tfq_bench_cifar10.topology import network_topology

        return network_topology(self.network, network)

    def sampler(self, name: str, steps: int) -> Ddim:
        """`ddim` or `ddim-quadratic`; SuiteError for a number of steps it cannot place."""
        schedule = Schedule(settings(scheduler_config(), name), name)
        try:
            sampler = Ddim(schedule, steps, "quadratic" if name == "ddim-quadratic" else "config")
        except api.SuiteError as error:
            reason = str(error).removeprefix("[sampling]: ")
            raise api.SuiteError(f"[sampling]: model '{self.network.model}': {reason}") from error
        # Stored results are found by it: it stays as it was, whatever else `Ddim` says of itself.
        sampler.definition = {
            "name": name,
            "eta": 0.0,
            "timesteps": list(sampler.timesteps),
            "schedule": "linear beta 1e-4..0.02, 1000 steps",
            "clip": "predicted image to [-1, 1], epsilon kept",
        }
        return sampler

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:
        """What the network is told of class i mod 10 for image i; nothing if it knows no classes.

        float32 `[B, 4, 128]` or int64 `[B]`, by the name of the network's argument.
        """
        if not self.network.argument:
            return {}
        labels = torch.tensor([image % CLASSES for image in images], device=device)
        return {self.network.argument: self._table(device)[labels]}

    def guidance(self, *, device: str) -> api.Guidance | None:
        """The scale and the row for no class; None without classes or at scale 1."""
        if not self.network.argument or self._scale == 1.0:
            return None
        nothing = self._table(device)[NO_CLASS:]
        return api.Guidance(scale=self._scale, condition={self.network.argument: nothing})

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 `[B, 32, 32, 3]` on the CPU; values are rounded, not truncated.

        Raises:
            CellError: values that are not finite, which no pixel can say.
        """
        broken = (~torch.isfinite(latents)).flatten(1).any(dim=1)
        if bool(broken.any()):
            raise api.CellError(
                f"model '{self.network.model}': {int(broken.sum())} of {len(latents)} images of "
                "the batch have values that are not finite; expected pixels."
            )
        images = latents.clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
        return images.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()

    def reference(self, extractor: str) -> Path | None:
        """Statistics of the 50,000 training images for `extractor`, if they are embedded."""
        path = embedded.WEIGHTS / f"reference-{extractor}.safetensors"
        return path if path.exists() else None

    def _table(self, device: str) -> Tensor:
        """What the network is told of each class and of none, `[11, ...]`; read once a device."""
        if device not in self._tables:
            tokens = embedded.load_weights(self.network)[1] if self.network.tokens else None
            table = class_table(None if tokens is None else tokens.float())
            self._tables[device] = table.to(device)
        return self._tables[device]
