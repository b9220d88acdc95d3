"""The noise schedule and the timesteps that a diffusers scheduler configuration describes.

diffusers' scheduler objects are not used: they keep state between calls, and derive the previous
timestep from a constant stride, which is wrong for quadratic spacing.

Symbols, here and in the samplers:

| symbol | |
|---|---|
| `T`, `t` | trained timesteps; one of them, 0 to T - 1, 0 being the cleanest |
| `alpha_bar` | float64 `[T]`, cumulative product of 1 - beta_t |
| `ab_t`, `ab_prev` | alpha_bar at the prediction's timestep, and at the next, cleaner one |
| `sqrt_ab`, `sqrt_1m_ab` | sqrt(alpha_bar), sqrt(1 - alpha_bar) |
| `x0`, `eps` | the image and the noise in `x = sqrt_ab x0 + sqrt_1m_ab eps` |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfq_bench import api

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Schedule", "whole"]


class Schedule:
    """`alpha_bar` over the trained timesteps, and how the network's output is meant.

    Args:
        settings: every key of the scheduler's class, see `classes.settings`.
        name: of the sampler, for messages.

    Raises:
        SuiteError: betas that are none.
    """

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        self.name = name
        self.train_steps = int(settings["num_train_timesteps"])
        trained = settings["trained_betas"] is not None
        self.kind = "trained" if trained else str(settings["beta_schedule"])
        self.prediction = str(settings["prediction_type"])
        clips = settings.get("clip_sample", False)
        self.clip = float(settings["clip_sample_range"]) if clips else None
        self.offset = int(settings["steps_offset"])
        self.spacing = str(settings["timestep_spacing"])
        betas = self._betas(settings)
        self.alpha_bar: np.ndarray = np.cumprod(1.0 - betas)
        if not self.alpha_bar[-1] > 0.0:
            raise api.SuiteError(
                f"sampler '{name}': the model's scheduler leaves no signal at its last timestep "
                "(the product of 1 - beta is 0); expected smaller betas."
            )
        self.final_alpha_bar = 1.0
        if not settings.get("set_alpha_to_one", True):
            self.final_alpha_bar = float(self.alpha_bar[0])

    def _betas(self, settings: Mapping[str, Any]) -> np.ndarray:
        if settings["trained_betas"] is not None:
            return self._trained(settings["trained_betas"])
        low, high = float(settings["beta_start"]), float(settings["beta_end"])
        if self.kind == "linear":
            return np.linspace(low, high, self.train_steps)
        if self.kind == "scaled_linear":
            return np.linspace(low**0.5, high**0.5, self.train_steps) ** 2
        # arXiv:2102.09672, equation 17, with betas capped at 0.999.
        grid = np.arange(self.train_steps + 1) / self.train_steps
        alpha_bar = np.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)

    def _trained(self, betas: Any) -> np.ndarray:
        expected = f"{self.train_steps} numbers between 0 and 1 (num_train_timesteps)"
        where = f"sampler '{self.name}': the model's scheduler has trained_betas"
        if not isinstance(betas, list | tuple):
            raise api.SuiteError(f"{where}; expected {expected}, found {type(betas).__name__}.")
        if len(betas) != self.train_steps:
            raise api.SuiteError(f"{where}; expected {expected}, found {len(betas)}.")
        for number, beta in enumerate(betas):
            plain = isinstance(beta, int | float) and not isinstance(beta, bool)
            if not plain or not 0.0 < beta < 1.0:
                found = api.printable(repr(beta), 40)
                raise api.SuiteError(f"{where}; expected {expected}, found {found} at {number}.")
        return np.asarray(betas, dtype=np.float64)

    def ab(self, t: float) -> float:
        """alpha_bar at a whole timestep; below 0, what the configuration says."""
        return float(self.alpha_bar[int(t)]) if t >= 0 else self.final_alpha_bar

    def check_steps(self, steps: int, fewest: int = 1) -> None:
        """Nothing, when `steps` steps can be placed; else SuiteError."""
        if not fewest <= steps <= self.train_steps:
            raise api.SuiteError(
                f"[sampling]: sampler '{self.name}' takes {fewest} to {self.train_steps} steps for "
                f"this model, found {steps}; change 'steps'."
            )

    def check_times(self, times: list[float], steps: int) -> list[float]:
        """`times`, when the network was trained at all of them; else SuiteError."""
        if times[0] > self.train_steps - 1:
            raise api.SuiteError(
                f"[sampling]: sampler '{self.name}' with {steps} steps would start at timestep "
                f"{times[0]:g}, but this model was trained up to {self.train_steps - 1}; take "
                "another number of 'steps'."
            )
        return times

    def spaced(self, steps: int) -> list[float]:
        """Timesteps, noisiest first, as `timestep_spacing` and `steps_offset` say.

        arXiv:2305.08891, table 2. `linspace` gives fractional ones.

        Raises:
            SuiteError: the steps cannot be placed, or lead beyond the trained timesteps.
        """
        if self.spacing == "leading":
            stride = self.train_steps // steps
            times = [float(i * stride + self.offset) for i in reversed(range(steps))]
            return self.check_times(times, steps)
        if self.spacing == "trailing":
            return self.trailing(self.train_steps, steps)
        return [float(t) for t in np.linspace(0, self.train_steps - 1, steps)[::-1]]

    def trailing(self, last: int, steps: int) -> list[float]:
        """Timesteps from `last` - 1 down by T / steps.

        Raises:
            SuiteError: rounding places another number of them.
        """
        placed = np.round(np.arange(last, 0, -self.train_steps / steps)) - 1
        if len(placed) != steps or placed[-1] < 0:
            raise api.SuiteError(
                f"[sampling]: sampler '{self.name}' cannot place {steps} steps with trailing "
                f"spacing on {last} timesteps, it would take {len(placed)}; take another number "
                "of 'steps'."
            )
        return [float(t) for t in placed]

    def x0_eps(self, x: Tensor, prediction: Tensor, ab_t: float) -> tuple[Tensor, Tensor]:
        """`x0` and `eps` that a prediction means: of eps, x0 or v = sqrt_ab eps - sqrt_1m_ab x0.

        Args:
            x: `[B, C, H, W]`, what the network was given. prediction: its answer, of that shape.
        """
        sqrt_ab, sqrt_1m_ab = ab_t**0.5, (1.0 - ab_t) ** 0.5
        if self.prediction == "epsilon":
            return (x - sqrt_1m_ab * prediction) / sqrt_ab, prediction
        if self.prediction == "sample":
            return prediction, (x - sqrt_ab * prediction) / sqrt_1m_ab
        return sqrt_ab * x - sqrt_1m_ab * prediction, sqrt_ab * prediction + sqrt_1m_ab * x

    def clipped(self, x0: Tensor) -> Tensor:
        """`x0`, clipped where the configuration says so."""
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)

    @property
    def definition(self) -> dict[str, Any]:
        """JSON-able description."""
        return {
            "schedule": self.kind,
            "first beta": float(1.0 - self.alpha_bar[0]),
            "last signal": float(self.alpha_bar[-1]),
            "train steps": self.train_steps,
            "prediction": self.prediction,
            "clip": self.clip,
            "final signal": self.final_alpha_bar,
        }


def whole(times: list[float]) -> tuple[int | float, ...]:
    """The timesteps as int when all are whole numbers, else as float."""
    if all(t == int(t) for t in times):
        return tuple(int(t) for t in times)
    return tuple(times)
