"""Euler's method on the probability flow (arXiv:2206.00364, algorithm 1 without churn)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfq_bench_diffusers.samplers.schedule import Schedule, whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Euler"]


class Euler:
    """Its state is x / sqrt(a), in which noise of level sigma is added to the image.

    Timesteps may be fractional; levels between two trained ones are interpolated, as in diffusers.

    Args:
        final: `zero` for a last level without noise, `sigma_min` for that of timestep 0.
    """

    stochastic = False

    def __init__(self, schedule: Schedule, steps: int, final: str) -> None:
        schedule.check_steps(steps)
        times = schedule.spaced(steps)
        self.timesteps = whole(times)
        self._schedule = schedule
        trained = ((1 - schedule.signal) / schedule.signal) ** 0.5
        sigmas = np.interp(times, np.arange(schedule.train_steps), trained)
        last = float(trained[0]) if final == "sigma_min" else 0.0
        self._sigmas = [*(float(sigma) for sigma in sigmas), last]
        top = max(self._sigmas)
        leading = schedule.spacing == "leading"
        self._start = (top**2 + 1) ** 0.5 if leading else top
        self.definition: Mapping[str, Any] = {
            "name": schedule.name,
            "timesteps": list(self.timesteps),
            **schedule.definition,
            "final sigma": last,
        }

    def initial(self, noise: Tensor) -> Tensor:
        """Noise of the first level."""
        return noise * self._start

    def network_input(self, state: Tensor, index: int) -> Tensor:
        """The state, scaled to the variance that the network was trained on."""
        return state / (self._sigmas[index] ** 2 + 1) ** 0.5

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:  # noqa: ARG002
        """Along the line through the predicted image."""
        now, after = self._sigmas[index], self._sigmas[index + 1]
        signal = 1 / (now**2 + 1)
        image, _ = self._schedule.split(self.network_input(state, index), prediction, signal)
        return state + (state - image) / now * (after - now)

    def final(self, state: Tensor) -> Tensor:
        """The state; what noise is left in it is of the last level."""
        return state
