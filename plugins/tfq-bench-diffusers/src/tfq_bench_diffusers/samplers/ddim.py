"""DDIM (arXiv:2010.02502) and DDPM (arXiv:2006.11239): one state, no memory.

Symbols, besides those of `schedule`:

| symbol | |
|---|---|
| `ab_t`, `ab_prev` | alpha_bar before and after a step; DDIM writes both without the bar |
| `alpha_t`, `beta_t` | ab_t / ab_prev and 1 - alpha_t, of the stride that a step takes |
| `mu`, `sigma2` | mean and variance of x after an ancestral step |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench import api
from tfq_bench_diffusers.samplers.schedule import Schedule, whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ddim", "Ddpm"]


class Ddim(api.PlainState):
    """Deterministic DDIM (eta = 0) over a list of timesteps.

    Args:
        spacing: `config` as the scheduler's configuration says; `quadratic` for
            (i sqrt(0.8 T) / (steps - 1))^2 (appendix D.2 of the paper; it repeats its smallest
            timesteps where they round to one); `compvis` for every (T // steps)th plus one, which
            may be more than `steps`, and beyond T where the stride divides T - 1.

    Raises:
        SuiteError: a number of steps that cannot be placed.
    """

    stochastic = False

    def __init__(self, schedule: Schedule, steps: int, spacing: str) -> None:
        schedule.check_steps(steps, 2 if spacing == "quadratic" else 1)
        last = schedule.final_alpha_bar
        if spacing == "quadratic":
            top = np.sqrt(schedule.train_steps * 0.8)
            times = [float(int(t)) for t in reversed(np.linspace(0, top, steps) ** 2)]
        elif spacing == "compvis":
            times = [t + 1.0 for t in range(0, schedule.train_steps, schedule.train_steps // steps)]
            times = schedule.check_times(times[::-1], steps)
            last = float(schedule.alpha_bar[0])
        else:
            times = [float(round(t)) for t in schedule.spaced(steps)]
        ab_t = [schedule.ab(t) for t in times]
        ab_prev, stride = [*ab_t[1:], last], None
        if spacing == "config":
            # diffusers goes down by a whole stride, whatever timestep comes next: they differ
            # where rounding has moved it (linspace, and trailing whose stride is a fraction).
            stride = schedule.train_steps // steps
            ab_prev = [schedule.ab(t - stride) for t in times]
        self.timesteps = whole(times)
        self._schedule = schedule
        self._alpha_bars = list(zip(ab_t, ab_prev, strict=True))
        self.definition: Mapping[str, Any] = {
            "name": schedule.name,
            "eta": 0.0,
            "timesteps": list(self.timesteps),
            **schedule.definition,
            "final signal": ab_prev[-1],
            "stride": stride,
        }

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:  # noqa: ARG002
        """Equation 12 with sigma = 0; eps is kept as it is.

        Deriving it anew from the clipped x0 would write the clipping error into the noise, which
        leaves grain in the images.
        """
        ab_t, ab_prev = self._alpha_bars[index]
        x0, eps = self._schedule.x0_eps(state, prediction, ab_t)
        x0 = self._schedule.clipped(x0)
        return torch.add(ab_prev**0.5 * x0, eps, alpha=(1.0 - ab_prev) ** 0.5)


class Ddpm(api.PlainState):
    """Ancestral sampling.

    Args:
        variance: `fixed_large` for beta, else (`fixed_small`, `fixed_small_log`, None) the
            posterior's.
    """

    stochastic = True

    def __init__(self, schedule: Schedule, steps: int, variance: str | None) -> None:
        schedule.check_steps(steps)
        times = [float(round(t)) for t in schedule.spaced(steps)]
        self.timesteps = whole(times)
        self._schedule = schedule
        self._alpha_bars = [*(schedule.ab(t) for t in times), 1.0]
        self._large = variance == "fixed_large"
        self.definition: Mapping[str, Any] = {
            "name": schedule.name,
            "variance": variance,
            "timesteps": list(self.timesteps),
            **schedule.definition,
            "final signal": 1.0,
        }

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:
        """Equations 6 and 7, for the beta of the stride; a step from timestep 0 adds no noise."""
        ab_t, ab_prev = self._alpha_bars[index], self._alpha_bars[index + 1]
        alpha_t = ab_t / ab_prev
        beta_t = 1 - alpha_t
        x0, _ = self._schedule.x0_eps(state, prediction, ab_t)
        x0 = self._schedule.clipped(x0)
        mu = ab_prev**0.5 * beta_t / (1 - ab_t) * x0
        mu = mu + alpha_t**0.5 * (1 - ab_prev) / (1 - ab_t) * state
        if self.timesteps[index] == 0 or noise is None:
            return mu
        posterior = max((1 - ab_prev) / (1 - ab_t) * beta_t, 1e-20)
        sigma2 = beta_t if self._large else posterior
        return mu + sigma2**0.5 * noise
