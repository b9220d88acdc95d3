"""Calibration data uniform in time: every c-th step of the sampler, the same images at each."""

from __future__ import annotations

from tfq_bench.api import CalibrationNeeds

__all__ = ["every_cth_step", "uniform_needs"]


def every_cth_step(sampler_steps: int, steps: int) -> range:
    """Steps 0, c, 2c, ... in execution order with c = sampler_steps // steps, at least 1.

    Where `steps` does not divide `sampler_steps` there are more than `steps`: 50 steps of which 20
    are asked give c = 2 and 25 steps, so that the clean end is never cut off.
    """
    return range(0, sampler_steps, max(1, sampler_steps // steps))


def uniform_needs(sampler_steps: int, *, steps: int, samples: int, images: int) -> CalibrationNeeds:
    """`samples` images (at most `images`) at every c-th step."""
    chosen = range(min(samples, images))
    return CalibrationNeeds(
        samples=tuple(
            (step, image) for step in every_cth_step(sampler_steps, steps) for image in chosen
        )
    )
