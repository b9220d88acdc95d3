"""The noise schedule and the timesteps that a diffusers scheduler configuration describes.

diffusers' scheduler objects are not used: they keep state between calls, and derive the previous
timestep from a constant stride, which is wrong for quadratic and rounded spacings.
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

REFUSED = {
    "thresholding": "dynamic thresholding",
    "use_karras_sigmas": "Karras spacing",
    "use_exponential_sigmas": "exponential spacing",
    "use_beta_sigmas": "beta spacing",
    "use_flow_sigmas": "flow matching",
    "use_lu_lambdas": "Lu's spacing",
    "rescale_betas_zero_snr": "betas rescaled to zero terminal SNR",
}
"""Options of a configuration that change the numbers and are not implemented."""


class Schedule:
    """Signal levels over the training timesteps, and how the network's output is meant.

    Args:
        config: content of a `scheduler_config.json`; missing keys have diffusers' defaults.
        name: of the sampler, for messages.

    Raises:
        SuiteError: the configuration asks for something that is not implemented.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        for key, what in REFUSED.items():
            if config.get(key):
                raise api.SuiteError(
                    f"sampler '{name}': the model's scheduler asks for {what} ({key}), which is "
                    "not implemented; expected it to be off."
                )
        self.name = name
        self.train_steps = int(config.get("num_train_timesteps", 1000))
        self.kind = str(config.get("beta_schedule", "linear"))
        self.prediction = str(config.get("prediction_type", "epsilon"))
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise api.SuiteError(
                f"sampler '{name}': expected a prediction type of epsilon, v_prediction or sample, "
                f"found {self.prediction!r}."
            )
        clips = bool(config.get("clip_sample", False))
        self.clip = float(config.get("clip_sample_range", 1.0)) if clips else None
        self.offset = int(config.get("steps_offset", 0))
        self.spacing = str(config.get("timestep_spacing", "leading"))
        self.final_signal = 1.0
        betas = self._betas(config)
        self.signal: np.ndarray = np.cumprod(1.0 - betas)
        if not config.get("set_alpha_to_one", True):
            self.final_signal = float(self.signal[0])

    def _betas(self, config: Mapping[str, Any]) -> np.ndarray:
        trained = config.get("trained_betas")
        if trained is not None:
            return np.asarray(trained, dtype=np.float64)
        low, high = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        if self.kind == "linear":
            return np.linspace(low, high, self.train_steps)
        if self.kind == "scaled_linear":
            return np.linspace(low**0.5, high**0.5, self.train_steps) ** 2
        if self.kind == "squaredcos_cap_v2":
            # arXiv:2102.09672, equation 17, with betas capped at 0.999.
            grid = np.arange(self.train_steps + 1) / self.train_steps
            level = np.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
            return np.minimum(1.0 - level[1:] / level[:-1], 0.999)
        raise api.SuiteError(
            f"sampler '{self.name}': expected a beta schedule of linear, scaled_linear or "
            f"squaredcos_cap_v2, found {self.kind!r}."
        )

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
            SuiteError: the spacing is unknown, or its offset leads beyond the trained timesteps.
        """
        if self.spacing == "leading":
            stride = self.train_steps // steps
            times = [float(i * stride + self.offset) for i in reversed(range(steps))]
            return self.check_times(times, steps)
        if self.spacing == "trailing":
            stride = self.train_steps / steps
            return [float(round(self.train_steps - i * stride) - 1) for i in range(steps)]
        if self.spacing == "linspace":
            return [float(t) for t in np.linspace(0, self.train_steps - 1, steps)[::-1]]
        raise api.SuiteError(
            f"sampler '{self.name}': expected a timestep spacing of leading, trailing or linspace, "
            f"found {self.spacing!r}."
        )

    def split(self, x: Tensor, prediction: Tensor, signal: float) -> tuple[Tensor, Tensor]:
        """The image and the noise that a prediction means: `x = sqrt(a) image + sqrt(1-a) noise`.

        Args:
            signal: `a`, the cumulative product of 1 - beta at the prediction's timestep.
        """
        keep, blur = signal**0.5, (1.0 - signal) ** 0.5
        if self.prediction == "epsilon":
            return (x - blur * prediction) / keep, prediction
        if self.prediction == "sample":
            return prediction, (x - keep * prediction) / blur
        return keep * x - blur * prediction, keep * prediction + blur * x

    def clipped(self, image: Tensor) -> Tensor:
        """`image`, clipped where the configuration says so."""
        return image if self.clip is None else image.clamp(-self.clip, self.clip)

    @property
    def definition(self) -> dict[str, Any]:
        """JSON-able description."""
        return {
            "schedule": self.kind,
            "first beta": float(1.0 - self.signal[0]),
            "last signal": float(self.signal[-1]),
            "train steps": self.train_steps,
            "prediction": self.prediction,
            "clip": self.clip,
            "final signal": self.final_signal,
        }


def whole(times: list[float]) -> tuple[int | float, ...]:
    """The timesteps as int when all are whole numbers, else as float."""
    if all(t == int(t) for t in times):
        return tuple(int(t) for t in times)
    return tuple(times)
