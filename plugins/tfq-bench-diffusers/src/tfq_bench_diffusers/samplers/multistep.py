"""PLMS (arXiv:2202.09778) and DPM-Solver++ (arXiv:2211.01095): they remember predictions.

What they remember lies in the state, behind x: `[B, (1 + k)*C, H, W]` for k tensors.

Symbols, besides those of `schedule`:

| symbol | |
|---|---|
| `e_t`, `e_prime` | a prediction of the network, and the weighted mean of several (PLMS) |
| `lambda` | log(sqrt_ab / sqrt_1m_ab), half the log of the signal-to-noise ratio |
| `h`, `r` | the step in lambda, and the one before it relative to it |
| `d` | D in the paper: x0, extrapolated from this step's and the one before |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench import api
from tfq_bench_diffusers.samplers.schedule import Schedule, whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DpmSolver", "Plms"]

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the newest prediction and those before it."""


class _Remembers:
    """A state of x and `kept` tensors of its size behind it."""

    kept: int

    def initial(self, noise: Tensor) -> Tensor:
        """X, and zeros where predictions will be."""
        return torch.cat([noise, noise.new_zeros(noise.shape).repeat(1, self.kept, 1, 1)], dim=1)

    def network_input(self, state: Tensor, index: int) -> Tensor:  # noqa: ARG002
        """X."""
        return self.final(state)

    def final(self, state: Tensor) -> Tensor:
        """X."""
        return state.narrow(1, 0, state.shape[1] // (1 + self.kept))


class Plms(_Remembers):
    """Pseudo linear multistep sampling, as diffusers' PNDM scheduler without Runge-Kutta steps.

    The second timestep comes twice, so `steps` steps call the network `steps + 1` times: the first
    step is taken again with the mean of two predictions.
    """

    stochastic = False
    kept = 3

    def __init__(self, schedule: Schedule, steps: int) -> None:
        schedule.check_steps(steps, 2)
        times = [float(round(t)) for t in schedule.spaced(steps)]
        self.timesteps = whole([times[0], times[1], *times[1:]])
        self._schedule = schedule
        # As in `Ddim`: down by a whole stride, whatever timestep comes next.
        stride = schedule.train_steps // steps
        self._alpha_bars = [(schedule.ab(t), schedule.ab(t - stride)) for t in times]
        # The first step is taken again from one stride above where its second half is computed.
        above = min(times[1] + stride, schedule.train_steps - 1)
        self._again = (schedule.ab(above), schedule.ab(times[1]))
        self.definition: Mapping[str, Any] = {
            "name": schedule.name,
            "order": 4,
            "stride": stride,
            "timesteps": list(self.timesteps),
            **schedule.definition,
        }

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:  # noqa: ARG002
        """Section 3.3 of the paper; the first two indices make one step together."""
        x, *before = state.chunk(1 + self.kept, dim=1)
        if index == 0:
            x_prev = self._transfer(x, prediction, self._alpha_bars[0])
            return torch.cat([x_prev, prediction, x, before[2]], dim=1)
        if index == 1:
            first, start, empty = before
            x = self._transfer(start, (prediction + first) / 2, self._again)
            return torch.cat([x, first, empty, empty], dim=1)
        known = [prediction, *before[: min(index - 1, 3)]]
        weights = ADAMS_BASHFORTH[len(known) - 1]
        e_prime = sum(weight * e_t for weight, e_t in zip(weights, known, strict=True))
        assert not isinstance(e_prime, int)
        x_prev = self._transfer(x, e_prime, self._alpha_bars[index - 1])
        return torch.cat([x_prev, prediction, before[0], before[1]], dim=1)

    def _transfer(self, x: Tensor, e_t: Tensor, alpha_bars: tuple[float, float]) -> Tensor:
        """The paper's transfer part: x of level ab_t to x of level ab_prev."""
        ab_t, ab_prev = alpha_bars
        x0, eps = self._schedule.x0_eps(x, e_t, ab_t)
        return ab_prev**0.5 * x0 + (1.0 - ab_prev) ** 0.5 * eps


class DpmSolver(_Remembers):
    """DPM-Solver++(2M), the midpoint form, or its first order.

    Args:
        settings: every key of diffusers' class, see `classes.settings`.
    """

    stochastic = False
    kept = 1

    def __init__(self, schedule: Schedule, steps: int, settings: Mapping[str, Any]) -> None:
        schedule.check_steps(steps)
        times = self._times(schedule, steps, settings["lambda_min_clipped"])
        times = schedule.check_times(times, steps)
        if len(set(times)) < steps:
            raise api.SuiteError(
                f"[sampling]: sampler '{schedule.name}' needs timesteps that differ; {steps} steps "
                f"on {schedule.train_steps} repeat some. Take fewer 'steps'."
            )
        self.timesteps = whole(times)
        self._schedule = schedule
        clean = settings["final_sigmas_type"] == "zero"
        last = 1.0 if clean else float(schedule.alpha_bar[0])
        self._alpha_bars = [*(schedule.ab(t) for t in times), last]
        if not clean and self._alpha_bars[-1] == self._alpha_bars[-2]:
            raise api.SuiteError(
                f"[sampling]: sampler '{schedule.name}' would take its last step from timestep 0 "
                "to the same level (final_sigmas_type = 'sigma_min'); take another number of "
                "'steps'."
            )
        few = settings["lower_order_final"] and steps < 15
        self._lower_final = clean or settings["euler_at_final"] or few
        self._order = int(settings["solver_order"])
        self.definition: Mapping[str, Any] = {
            "name": schedule.name,
            "order": self._order,
            "timesteps": list(self.timesteps),
            **schedule.definition,
            "final signal": last,
            "last step of first order": bool(self._lower_final),
        }

    @staticmethod
    def _times(schedule: Schedule, steps: int, clipped: float) -> list[float]:
        """One more than asked is placed, and the cleanest left out, where the end is not noise."""
        lambdas = 0.5 * np.log(schedule.alpha_bar / (1.0 - schedule.alpha_bar))
        last = schedule.train_steps - int((lambdas < clipped).sum())
        if last <= 0:
            raise api.SuiteError(
                f"sampler '{schedule.name}': the model's scheduler says lambda_min_clipped = "
                f"{clipped:g}, which leaves no timestep; expected less."
            )
        if schedule.spacing == "leading":
            stride = last // (steps + 1)
            return [float(i * stride + schedule.offset) for i in range(steps, 0, -1)]
        if schedule.spacing == "linspace":
            return [float(round(t)) for t in np.linspace(0, last - 1, steps + 1)[:0:-1]]
        return schedule.trailing(last, steps)

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:  # noqa: ARG002
        """Algorithm 2 of the paper, for the prediction of the image."""
        x, x0_before = state.chunk(2, dim=1)
        ab_t, ab_prev = self._alpha_bars[index], self._alpha_bars[index + 1]
        x0, _ = self._schedule.x0_eps(x, prediction, ab_t)
        if ab_prev == 1.0:
            return torch.cat([x0, x0], dim=1)  # without noise left, x is the image
        h = _lambda(ab_prev) - _lambda(ab_t)
        d = x0
        lower = index == len(self.timesteps) - 1 and self._lower_final
        if index > 0 and self._order > 1 and not lower:
            r = (_lambda(ab_t) - _lambda(self._alpha_bars[index - 1])) / h
            d = x0 + (x0 - x0_before) / (2 * r)
        x_prev = ((1 - ab_prev) / (1 - ab_t)) ** 0.5 * x - ab_prev**0.5 * math.expm1(-h) * d
        return torch.cat([x_prev, x0], dim=1)


def _lambda(alpha_bar: float) -> float:
    return 0.5 * math.log(alpha_bar / (1.0 - alpha_bar))
