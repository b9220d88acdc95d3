"""The networks that are timed, each with one call at the middle step of a DDIM sampler."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.api import LoadedModel, timestep_tensor
from tfq_bench.host.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from tfq_bench.quant import QuantizedState

__all__ = ["NETWORKS", "Case", "load"]

NETWORKS = {"cifar10": ("cifar10", 10, 8), "sd15": ("sd-v1-5", 1, 1)}
"""By name: an installed model, steps of its sampler (entries of its tables) and images a call.

That of the size of SD 1.5 has random weights, and one step, for which one pass calibrates it.
"""


@dataclass(kw_only=True)
class Case:
    """One call of one network.

    Args:
        x: float32 `[B, C, H, W]`.
    """

    name: str
    loaded: LoadedModel
    x: Tensor
    step: int

    @cached_property
    def timestep(self) -> Tensor:
        """`[B]`."""
        return timestep_tensor(self.loaded.sampler.timesteps[self.step], len(self.x), "cpu")

    @cached_property
    def condition(self) -> Mapping[str, Tensor]:
        """What the network is told of the images."""
        return self.loaded.model.conditions(range(len(self.x)), device="cpu")

    def call(self, network: nn.Module, x: Tensor | None = None) -> Callable[[], Tensor]:
        """Predicts with `network`; `x` in place of the case's own."""
        given = self.x if x is None else x
        return lambda: self.loaded.model.predict(network, given, self.timestep, self.condition)

    def state(self, wbits: int) -> QuantizedState:
        """Round-to-nearest at W`wbits`A8, calibrated on the model's own trajectory."""
        from tfq_bench.api import Scheme
        from tfq_bench.pipeline.calibrate import capture
        from tfq_bench.quant import RoundToNearest

        options: dict[str, Any] = {} if self.name == "cifar10" else {"calibration_steps": 1}
        quantizer = RoundToNearest(scheme=Scheme(wbits=wbits, abits=8), **options)
        images = len(self.x)
        needs = quantizer.calibration_needs(self.loaded, images=images)
        data = capture(self.loaded, needs, seed=0, batch=images, progress=lambda *_: None)
        generator = torch.Generator().manual_seed(0)
        with torch.enable_grad():
            return quantizer.quantize(
                self.loaded, data, generator=generator, progress=lambda *_: None
            )


def load(name: str, batch: int | None) -> Case:
    """A network by its name in `NETWORKS`, in float32."""
    model_name, steps, images = NETWORKS[name]
    table = discover()
    provider = table.get("model", model_name)
    options = {option.name: option.default for option in provider.options}
    if name != "cifar10":
        options.update(weights="random", dtype="float32", guidance=1.0)
    model = table.create(provider, **options)
    network = model.load(device="cpu", dtype=torch.float32)
    loaded = LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", steps),
        device="cpu",
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch or images, *model.latent_shape), generator=generator)
    return Case(name=name, loaded=loaded, x=x, step=steps // 2)
