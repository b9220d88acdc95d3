"""Predictions by which contracts compare networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tfq_bench.seeds import noise
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["IMAGES", "predictions"]

IMAGES = 4


@torch.no_grad()
def predictions(loaded: LoadedModel, lowered: Lowered) -> Tensor:
    """Predictions `[T, B, C, H, W]` of one noise at every step of the sampler."""
    model, device = loaded.model, loaded.device
    x = noise(0, "contract", range(IMAGES), model.latent_shape, device=device)
    condition = model.conditions(range(IMAGES), device=device)
    outputs = []
    for step, timestep in enumerate(loaded.sampler.timesteps):
        lowered.step.set(step)
        t = timestep_tensor(timestep, IMAGES, device)
        outputs.append(model.predict(lowered.network, x, t, condition).cpu())
    return torch.stack(outputs)
