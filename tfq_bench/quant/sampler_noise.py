"""How much noise a stochastic sampler still adds where the prediction brings some of its own.

A step of a sampler is, wherever it clips nothing, affine in the prediction e and in its noise z:

    x' = ... + A_t e + sigma_t z

Noise of variance v in e is noise of variance A_t^2 v in x'. Taking it out of what z adds leaves the
variance of x' as the sampler wants it (PTQD, arXiv:2305.10657, variance schedule calibration):

    sigma'_t^2 = max(0, sigma_t^2 - A_t^2 v)

The sampler is a pure function, so A_t and sigma_t are found by asking it, and no sampler need know.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.types.networks import LoadedModel

__all__ = ["noise_share"]

SMALL = 2.0**-20
"""What e and z are moved by, from 0: too little to reach where a sampler clips the image."""


@torch.no_grad()
def noise_share(loaded: LoadedModel, step: int, variance: float) -> float:
    """What the noise of a step is multiplied by, sigma'_t / sigma_t in [0, 1].

    Args:
        step: in execution order.
        variance: v of the prediction's own noise, at least 0.

    Returns:
        1 where the sampler adds no noise, and for every step of a deterministic one.
    """
    sampler = loaded.sampler
    if not sampler.stochastic:
        return 1.0
    shape = (1, *loaded.model.latent_shape)
    zero = torch.zeros(shape, dtype=torch.float64, device=loaded.device)
    start, small = sampler.initial(zero), zero + SMALL

    def moved(prediction: Tensor, noise: Tensor) -> Tensor:
        return sampler.final(sampler.step(start, prediction, step, noise))

    still = moved(zero, zero)
    gain = float((moved(small, zero) - still).mean()) / SMALL
    sigma = float((moved(zero, small) - still).mean()) / SMALL
    if sigma == 0.0:
        return 1.0
    return math.sqrt(max(0.0, 1.0 - (gain / sigma) ** 2 * variance))
