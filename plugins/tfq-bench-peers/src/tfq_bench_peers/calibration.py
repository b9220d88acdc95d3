"""Calibration data as tools want them: few states, spread over the sampler, a call at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfq_bench.api import CalibrationNeeds

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.api import CalibrationData

__all__ = ["calls", "spread"]


def spread(*, steps: int, images: int, samples: int) -> CalibrationNeeds:
    """At most `samples` of all (step, image): every step in turn, each time with another image."""
    count = min(samples, steps * images)
    pairs = ((number % steps, number // steps) for number in range(count))
    # Later steps of a round see other images, so that few samples are not all of the first.
    chosen = {(step, (image + step) % images) for step, image in pairs}
    return CalibrationNeeds(samples=tuple(sorted(chosen)))


def calls(
    data: CalibrationData, *, rows: int
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Inputs `[B, C, H, W]`, timestep `[B]` and condition of network calls, B at most `rows`."""
    for start in range(0, len(data.x), rows):
        part = slice(start, start + rows)
        condition = {name: value[part] for name, value in data.condition.items()}
        yield data.x[part], data.timestep[part], condition
