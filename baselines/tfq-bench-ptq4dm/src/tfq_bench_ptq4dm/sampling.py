"""Normally distributed timestep calibration (NDTC, arXiv:2211.15736) and its variants.

Symbols: `S` sampler steps, `k` step in execution order (0 is the noisiest), `t = S - 1 - k` the
drawn index, counted from the clean end as in the paper.

| sampling | t | state | what the network is told |
|---|---|---|---|
| `normal` | N(mu, sigma) | x before step k | timestep of step k |
| `uniform` | every one equally often | x before step k | timestep of step k |
| `mirrored` | N(mu, sigma) | x after the step *number* t | timestep of step k |
| `released` | N(mu, sigma) | x after the step *number* t | t itself |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

__all__ = ["Sample", "Sampling", "draw_indices", "draw_samples"]

Sampling = Literal["normal", "uniform", "mirrored", "released"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One calibration sample.

    Args:
        state: step in execution order whose input x is used; `S` means the finished image.
        label: step in execution order whose timestep goes with it; differs from `state` in
            `mirrored` and `released` only.
        image: index of the image.
    """

    state: int
    label: int
    image: int


def draw_indices(
    count: int, steps: int, *, sampling: Sampling, mu: float, sigma: float
) -> tuple[int, ...]:
    """`count` indices t in [0, steps - 1], ascending.

    t = floor(steps * u) with u from N(mu, sigma), clamped; `uniform`: u from [0, 1). The u are the
    distribution's quantiles at (i + 1/2) / count instead of random draws, so that the histogram is
    the distribution's own at any size.

    Args:
        mu, sigma: as shares of `steps`; 0 is the clean end.
    """
    shares = [(index + 0.5) / count for index in range(count)]
    if sampling != "uniform":
        normal = NormalDist(mu, sigma)
        shares = [normal.inv_cdf(share) for share in shares]
    return tuple(min(max(math.floor(steps * share), 0), steps - 1) for share in shares)


def draw_samples(
    count: int, steps: int, images: int, *, sampling: Sampling, mu: float, sigma: float
) -> tuple[Sample, ...]:
    """`count` samples whose timesteps follow `draw_indices`, dealt to the images in turn.

    Equal timesteps go to different images as long as there are enough; beyond that a sample is
    repeated, which keeps the histogram.
    """
    indices = draw_indices(count, steps, sampling=sampling, mu=mu, sigma=sigma)
    return tuple(
        # The released code looks for sampling step number t, counted from the noisy end, keeps
        # the state after that step, and labels it with timestep t, counted from the clean end.
        Sample(
            state=t + 1 if sampling in ("mirrored", "released") else steps - 1 - t,
            label=steps - 1 - t,
            image=position % images,
        )
        for position, t in enumerate(indices)
    )
