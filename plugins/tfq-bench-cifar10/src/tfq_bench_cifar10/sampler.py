"""DDIM (arXiv:2010.02502) with eta = 0, as a pure function of state, prediction and step.

diffusers' own scheduler is not used: it derives the previous timestep from a constant stride,
which is wrong for quadratic spacing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench import api
from tfq_bench_cifar10.network import TRAIN_STEPS, alphas_cumprod

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ddim"]


class Ddim(api.PlainState):
    """Deterministic DDIM.

    Args:
        name: `ddim` for evenly spaced timesteps i * (1000 // steps), `ddim-quadratic` for
            (i * sqrt(800) / (steps - 1))^2 (arXiv:2010.02502, appendix D.2).
        steps: 1..1000 (uniform), 2..1000 (quadratic). From 30 on the quadratic list repeats its
            smallest timesteps, as the published 100 steps do; a repeated one leaves the state where
            it is, up to clipping.

    Raises:
        ValueError: a number of steps out of range.
    """

    stochastic = False

    def __init__(self, name: str, steps: int) -> None:
        fewest = 2 if name == "ddim-quadratic" else 1
        if not fewest <= steps <= TRAIN_STEPS:
            raise ValueError(
                f"sampler '{name}' takes {fewest} to {TRAIN_STEPS} steps, found "
                f"{steps}; change 'steps'."
            )
        if name == "ddim-quadratic":
            ascending = (np.linspace(0, np.sqrt(TRAIN_STEPS * 0.8), steps) ** 2).astype(int)
        else:
            ascending = np.arange(steps) * (TRAIN_STEPS // steps)
        times = [int(t) for t in reversed(ascending)]
        self.name = name
        self.timesteps: tuple[int | float, ...] = tuple(times)
        signal = alphas_cumprod()
        now = [float(signal[t]) for t in times]
        self._coefficients = list(zip(now, [*now[1:], 1.0], strict=True))

    @property
    def definition(self) -> Mapping[str, Any]:
        """Name, exact timesteps and schedule."""
        return {
            "name": self.name,
            "eta": 0.0,
            "timesteps": list(self.timesteps),
            "schedule": "linear beta 1e-4..0.02, 1000 steps",
            "clip": "predicted image to [-1, 1], epsilon kept",
        }

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:  # noqa: ARG002
        """Equation 12 with sigma = 0; the predicted image is clipped to [-1, 1].

        The network's epsilon is kept as it is: deriving it anew from the clipped image writes the
        clipping error into the noise, which leaves grain in the images.

        Args:
            state: x `[B, 3, 32, 32]`. prediction: epsilon, same shape. index: 0..steps-1.
        """
        now, after = self._coefficients[index]
        image = (state - (1.0 - now) ** 0.5 * prediction) / now**0.5
        image = image.clamp(-1.0, 1.0)
        return torch.add(after**0.5 * image, prediction, alpha=(1.0 - after) ** 0.5)
