"""Euler's method on the probability flow (arXiv:2206.00364, algorithm 1 without churn).

Symbols, besides those of `schedule`:

| symbol | |
|---|---|
| `sigma` | sqrt((1 - alpha_bar) / alpha_bar), the noise level of x_hat |
| `x_hat` | the state, x / sqrt_ab = x0 + sigma eps |
| `d_cur` | the slope of x_hat over sigma |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfq_bench_diffusers.samplers.schedule import Schedule, whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Euler"]


class Euler:
    """Its state is `x_hat`, in which noise of level sigma is added to the image.

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
        trained = ((1 - schedule.alpha_bar) / schedule.alpha_bar) ** 0.5
        placed = np.interp(times, np.arange(schedule.train_steps), trained)
        last = float(trained[0]) if final == "sigma_min" else 0.0
        self._sigmas = [*(float(sigma) for sigma in placed), last]
        sigma_max = max(self._sigmas)
        leading = schedule.spacing == "leading"
        self._initial_scale = (sigma_max**2 + 1) ** 0.5 if leading else sigma_max
        self.definition: Mapping[str, Any] = {
            "name": schedule.name,
            "timesteps": list(self.timesteps),
            **schedule.definition,
            "final sigma": last,
        }

    def initial(self, noise: Tensor) -> Tensor:
        """Noise of the first level."""
        return noise * self._initial_scale

    def network_input(self, state: Tensor, index: int) -> Tensor:
        """The state, scaled to the variance that the network was trained on."""
        return state / (self._sigmas[index] ** 2 + 1) ** 0.5

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:  # noqa: ARG002
        """Along the line through the predicted image."""
        sigma, sigma_next = self._sigmas[index], self._sigmas[index + 1]
        x, ab_t = self.network_input(state, index), 1 / (sigma**2 + 1)
        x0, _ = self._schedule.x0_eps(x, prediction, ab_t)
        d_cur = (state - x0) / sigma
        return state + d_cur * (sigma_next - sigma)

    def final(self, state: Tensor) -> Tensor:
        """The state; what noise is left in it is of the last level."""
        return state
