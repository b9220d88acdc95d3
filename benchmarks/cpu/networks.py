"""The networks that are timed, and one call of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import LoadedModel, timestep_tensor
from tfq_bench.host.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from tfq_bench.protocols import Model

__all__ = ["NETWORKS", "Case", "Network", "model_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network at its usual size.

    Args:
        model: name of an installed model. steps: of its sampler, entries of its tables.
        images: of a call. rounds: unless others are asked for.
        at_once: contestants that live beside FP32 eager at a time; 0 for all.
        left_out: starts of names of contestants that are left out unless they are asked for.
    """

    model: str
    steps: int
    images: int
    rounds: int
    at_once: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def random(self) -> bool:
        """Whether its weights are random: all but those that come with a package."""
        return self.model != "cifar10"


NETWORKS = {
    "cifar10": Network(model="cifar10", steps=10, images=8, rounds=30),
    "sd15": Network(model="sd-v1-5", steps=1, images=1, rounds=10, at_once=1),
    "sdxl": Network(
        model="sdxl",
        steps=1,
        images=1,
        rounds=5,
        at_once=1,
        # Minutes or memory for another copy of 10 GB.
        left_out=("FP32 compiled", "BF16 compiled", "OpenVINO+NNCF", "torchao"),
    ),
}


def model_of(name: str, size: int, dtype: str = "float32") -> Model:
    """The model of a network in `NETWORKS`.

    Args:
        size: pixels along a side, 0 for the model's own. dtype: what the network computes in.
    """
    network = NETWORKS[name]
    table = discover()
    provider = table.get("model", network.model)
    options = {option.name: option.default for option in provider.options}
    options["dtype"] = dtype
    if network.random:
        options.update(weights="random", guidance=1.0, resolution=size)
    return table.create(provider, **options)


@dataclass(kw_only=True)
class Case:
    """One call of one network, at the middle step of a DDIM sampler.

    Args:
        size: see `model_of`. x: float32 `[B, C, H, W]`. folder: what was prepared, see `prepared`.
    """

    name: str
    size: int
    loaded: LoadedModel
    x: Tensor
    folder: Path

    @property
    def step(self) -> int:
        """Of the sampler."""
        return len(self.loaded.sampler.timesteps) // 2

    @cached_property
    def timestep(self) -> Tensor:
        """`[B]`."""
        return timestep_tensor(self.loaded.sampler.timesteps[self.step], len(self.x), "cpu")

    def call(
        self, network: nn.Module, x: Tensor | None = None, model: Model | None = None
    ) -> Callable[[], Tensor]:
        """Predicts with `network`; `x` and `model` in place of the case's own."""
        caller = self.loaded.model if model is None else model
        condition = caller.conditions(range(len(self.x)), device="cpu")
        given = self.x if x is None else x
        return lambda: caller.predict(network, given, self.timestep, condition)

    def half(self) -> tuple[nn.Module, Tensor, Model]:
        """The network in bfloat16 and channels last, its input and its model.

        It is the case's own network that is converted.
        """
        # Not the network's own `to`, which warns of what is meant here.
        network = torch.nn.Module.to(self.loaded.network, torch.bfloat16)
        network = torch.nn.Module.to(network, memory_format=torch.channels_last)
        x = self.x.bfloat16().contiguous(memory_format=torch.channels_last)
        return network, x, model_of(self.name, self.size, "bfloat16")
