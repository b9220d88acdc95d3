"""PTQD: another method's state, with what is known of its error for the sampler to take out."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import CalibrationError, CalibrationNeeds
from tfq_bench.quant import (
    SamplerCorrection,
    guided_prediction,
    noise_share,
    simulate,
    take,
)
from tfq_bench_ptqd.fit import StepError, fit_error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

    from tfq_bench.api import CalibrationData, LoadedModel, Lowered, Progress, Quantizer, Scheme
    from tfq_bench.quant import QuantizedState

__all__ = ["Ptqd"]

_log = logging.getLogger("tfq_bench.ptqd")

BATCH = 16
"""Images per network call; the result depends on it in last bits only."""

BASE_SHARE = 0.9
"""Of the progress that is shown; what is spent on the base differs widely."""


class Ptqd:
    """A `Quantizer` whose state is the base's, with a `SamplerCorrection`.

    Args:
        scheme: bits and policy; the base has the same.
        base: the method whose error is taken out. Data and generator are what it would get alone.
        correction_images: images at every step that the error is fitted on: the last of those that
            the base sees, or of all where it sees none. Others would go through the sampler in the
            same batches, which changes last bits of what the base sees, and learning much more.
        correct_slope, correct_bias, absorb_variance: False for what is to be left as it is.
        negative_slopes: True keeps slopes below 0, which the released code sets to 0.
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        base: Quantizer,
        correction_images: int = 64,
        correct_slope: bool = True,
        correct_bias: bool = True,
        absorb_variance: bool = True,
        negative_slopes: bool = False,
    ) -> None:
        self.scheme = scheme
        self.base = base
        self.correction_images = correction_images
        self.correct_slope = correct_slope
        self.correct_bias = correct_bias
        self.absorb_variance = absorb_variance
        self.negative_slopes = negative_slopes

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """What the base needs, and `correction_images` of its images at every step."""
        base = self.base.calibration_needs(loaded, images=images).samples
        own = [
            (step, image)
            for step in range(len(loaded.sampler.timesteps))
            for image in self._own_images(base, images)
        ]
        return CalibrationNeeds(samples=tuple(dict.fromkeys([*base, *own])))

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,
        progress: Progress,
        checkpoint: Path | None = None,
    ) -> QuantizedState:
        """The base's state, bit for bit, and its correction.

        Raises:
            CalibrationError: no calibration images, or a base whose needs cannot be told from what
                was captured.
            QuantizationError: predictions that cannot be corrected, see `fit_error`.
            TfqError: whatever the base raises.
        """
        if len(data.x) == 0:
            raise CalibrationError(
                "ptqd fits the error on calibration images, found none; raise 'images' under "
                "[calibration]."
            )
        pairs = list(zip(data.step.tolist(), data.image.tolist(), strict=True))
        images = max(image for _, image in pairs) + 1
        if set(pairs) != set(self.calibration_needs(loaded, images=images).samples):
            raise CalibrationError(
                f"what {type(self.base).__name__} asks for out of all calibration images differs "
                f"from what it asks for out of the first {images}, which are all it saw. ptqd "
                "cannot tell its data from its own; set 'images' under [calibration] so low that "
                "it takes all."
            )
        needed = self.base.calibration_needs(loaded, images=images).samples
        state = self.base.quantize(
            loaded,
            take(data, _rows(pairs, set(needed))),
            generator=generator,
            progress=lambda done, text: progress(BASE_SHARE * done, text),
            checkpoint=checkpoint,
        )
        images_of_ours = self._own_images(needed, images)
        ours = {(step, image) for step, image in pairs if image in images_of_ours}
        fitted = take(data, _rows(pairs, ours))
        errors = self._errors(loaded, simulate(loaded, state), fitted, progress)
        correction = SamplerCorrection(
            slope=torch.tensor([error.slope for error in errors], dtype=torch.float32),
            bias=torch.stack([error.bias for error in errors]).float().cpu(),
            variance=torch.tensor(
                [error.variance if self.absorb_variance else 0.0 for error in errors],
                dtype=torch.float32,
            ),
        )
        _tell(loaded, correction)
        return replace(state, method=f"ptqd+{state.method}", correction=correction)

    def _own_images(self, base: Iterable[tuple[int, int]], images: int) -> list[int]:
        seen = sorted({image for _, image in base}) or list(range(images))
        return seen[-self.correction_images :]

    @torch.no_grad()
    def _errors(
        self, loaded: LoadedModel, lowered: Lowered, data: CalibrationData, progress: Progress
    ) -> list[StepError]:
        """The error at every step, of the guided prediction where there is guidance."""
        guided = loaded.model.guidance(device=loaded.device) is not None
        errors = []
        steps = len(loaded.sampler.timesteps)
        for step in range(steps):
            # Of guidance's two rows the second has the condition; the first is made again of it.
            rows = torch.nonzero(data.step == step).flatten()[1 if guided else 0 :: 1 + guided]
            lowered.step.set(step)
            exact, found = (
                torch.cat([_predicted(loaded, network, data, part) for part in rows.split(BATCH)])
                for network in (loaded.network, lowered.network)
            )
            errors.append(
                fit_error(
                    exact,
                    found,
                    slope=self.correct_slope,
                    bias=self.correct_bias,
                    negative_slopes=self.negative_slopes,
                )
            )
            progress(BASE_SHARE + (1 - BASE_SHARE) * (step + 1) / steps, "fitting the error")
        return errors


def _predicted(
    loaded: LoadedModel, network: torch.nn.Module, data: CalibrationData, rows: Tensor
) -> Tensor:
    part = take(data, rows)
    return guided_prediction(loaded.model, network, part.x, part.timestep, part.condition)


def _rows(pairs: Iterable[tuple[int, int]], chosen: set[tuple[int, int]]) -> Tensor:
    found = [number for number, pair in enumerate(pairs) if pair in chosen]
    return torch.tensor(found, dtype=torch.int64)


def _tell(loaded: LoadedModel, correction: SamplerCorrection) -> None:
    """What was fitted, into the cell's log."""
    _log.info(
        "slopes %.3g to %.3g, biases up to %.3g, standard deviations of the rest %.3g to %.3g",
        float(correction.slope.min()),
        float(correction.slope.max()),
        float(correction.bias.abs().max()),
        float(correction.variance.min()) ** 0.5,
        float(correction.variance.max()) ** 0.5,
    )
    if not loaded.sampler.stochastic:
        _log.info("the sampler adds no noise, so nothing of the rest is absorbed")
        return
    shares = [
        noise_share(loaded, step, correction.remaining_variance(step))
        for step in range(len(correction.slope))
    ]
    _log.info("of the sampler's noise, %.3g to %.3g is left to add", min(shares), max(shares))
