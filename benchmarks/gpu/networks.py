"""The networks that are timed, with random weights except for the embedded one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tfq_bench.api import LoadedModel, timestep_tensor
from tfq_bench.host.plugins import discover

STEPS = 10
"""Sampler steps, as many entries as the tables of a state have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network at one size.

    Args:
        model: name of an installed model. resolution: pixels, 0 for the model's own.
        batches: rows of a call; under guidance an image has two.
    """

    model: str
    batches: tuple[int, ...]
    resolution: int = 0

    @property
    def random(self) -> bool:
        """Whether its weights are random: all but those that come with a package."""
        return not self.model.startswith("cifar10")


CASES = {
    "sdxl": Case(model="sdxl", batches=(1, 2, 8)),
    "sdxl-512": Case(model="sdxl", batches=(2,), resolution=512),
    "sd15": Case(model="sd-v1-5", batches=(2,)),
    "dit": Case(model="dit-xl-2-256", batches=(2,)),
    "pixart-sigma": Case(model="pixart-sigma", batches=(2,)),
    "cifar10": Case(model="cifar10", batches=(64, 256)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The same weights twice.

    Args:
        full: float32. half: bfloat16, filters with channels last.
    """

    full: LoadedModel
    half: LoadedModel


def load(case: Case, device: str = "cuda", steps: int = STEPS) -> Networks:
    """Both networks of a case, and a DDIM sampler."""
    installed = discover()
    provider = installed.get("model", case.model)

    def model(dtype: str):
        options = {option.name: option.default for option in provider.options}
        options["dtype"] = dtype
        if case.random:
            options.update(weights="random", guidance=1.0, resolution=case.resolution)
        return installed.create(provider, **options)

    plain = model("float32")
    network = plain.load(device=device, dtype=torch.float32)
    full = LoadedModel(
        model=plain,
        network=network,
        topology=plain.topology(network),
        sampler=plain.sampler("ddim", steps),
        device=device,
    )
    # Not the network's own `to`, which warns of what is meant here.
    half = nn.Module.to(copy.deepcopy(network), torch.bfloat16)
    half = nn.Module.to(half, memory_format=torch.channels_last)
    return Networks(full=full, half=replace(full, model=model("bfloat16"), network=half))


def call(
    loaded: LoadedModel, batch: int, *, network: nn.Module | None = None, tf32: bool = False
) -> Callable[[], Tensor]:
    """Predicts the same `batch` rows at the middle step, float32 out.

    Args:
        network: in place of the model's own, of the same type.
    """
    ran = loaded.network if network is None else network
    dtype = next(loaded.network.parameters()).dtype
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch, *loaded.model.latent_shape), generator=generator)
    x = x.to(loaded.device, dtype)
    t = timestep_tensor(loaded.sampler.timesteps[middle(loaded)], batch, loaded.device)
    condition = loaded.model.conditions(range(batch), device=loaded.device)

    def run() -> Tensor:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        return loaded.model.predict(ran, x, t, condition)

    return run


def middle(loaded: LoadedModel) -> int:
    """The sampler step that is timed."""
    return len(loaded.sampler.timesteps) // 2
