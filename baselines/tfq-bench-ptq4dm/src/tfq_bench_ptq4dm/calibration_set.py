"""The calibration set: drawn samples as network inputs, in the order in which ranges see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import CalibrationData, QuantizationError
from tfq_bench.quant import guided_prediction

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.api import LoadedModel
    from tfq_bench_ptq4dm.sampling import Sample

__all__ = ["calibration_set"]

FINISHED_AT_ONCE = 32
"""Images per network call while the last step is taken."""


@torch.no_grad()
def calibration_set(
    loaded: LoadedModel,
    data: CalibrationData,
    drawn: Sequence[Sample],
    *,
    bare_timesteps: bool,
    generator: torch.Generator,
) -> CalibrationData:
    """The drawn samples in random order, each with the timestep of its label.

    Args:
        data: the captured states; a finished image is made from the last of them.
        bare_timesteps: tell the network t in [0, S - 1], counted from the clean end, instead of
            the sampler's timestep: the released code quantizes the network without the wrapper
            that maps one to the other.
        generator: CPU; orders the samples, and draws the noise of a stochastic last step.

    Raises:
        QuantizationError: a drawn state is not in `data`, or the sampler has a memory, so that no
            step can be taken from a state alone.
    """
    if len(data.x) == 0:
        return data
    rows: dict[tuple[int, int], list[int]] = {}  # two rows each under guidance
    for row, pair in enumerate(zip(data.step.tolist(), data.image.tolist(), strict=True)):
        rows.setdefault(pair, []).append(row)
    last = len(loaded.sampler.timesteps) - 1
    missing = [one for one in drawn if (min(one.state, last), one.image) not in rows]
    if missing:
        raise QuantizationError(
            "the calibration data must hold the states that the quantizer asked for, found no "
            f"state of step {missing[0].state}, image {missing[0].image}; capture anew."
        )
    # A moving average forgets: in drawn order it would know the noisiest steps only.
    order = torch.randperm(len(drawn), generator=generator).tolist()
    drawn = [drawn[position] for position in order]
    held = [(one, row) for one in drawn for row in rows[min(one.state, last), one.image]]
    index = torch.tensor([row for _, row in held], device=data.x.device)
    label = torch.tensor([one.label for one, _ in held], device=data.x.device)
    x = data.x[index]
    finished = torch.tensor([one.state > last for one, _ in held], device=data.x.device)
    if bool(finished.any()):
        given = torch.tensor(
            [rows[min(one.state, last), one.image][-1] for one, _ in held], device=data.x.device
        )[finished]
        told = {name: value[given] for name, value in data.condition.items()}
        x[finished] = _finish(loaded, x[finished], told, generator)
    timesteps = range(last, -1, -1) if bare_timesteps else loaded.sampler.timesteps
    table = torch.tensor(list(timesteps), device=data.x.device, dtype=data.timestep.dtype)
    return CalibrationData(
        x=x,
        timestep=table[label],
        step=label,
        image=data.image[index],
        condition={name: value[index] for name, value in data.condition.items()},
    )


def _finish(
    loaded: LoadedModel, x: Tensor, condition: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    """The images that the sampler's last step makes of x.

    Args:
        condition: what the images are of; guidance adds its own.
    """
    last = len(loaded.sampler.timesteps) - 1
    if loaded.sampler.network_input(x, last) is not x:
        raise QuantizationError(
            "the mirrored pairing steps on from what the network read, which this sampler cannot: "
            "its state holds more. Use a sampler without memory (ddim), or another pairing."
        )
    done = []
    for start in range(0, len(x), FINISHED_AT_ONCE):
        rows = slice(start, start + FINISHED_AT_ONCE)
        part = x[rows]
        t = torch.full((len(part),), loaded.sampler.timesteps[last], device=x.device)
        held = {name: value[rows] for name, value in condition.items()}
        prediction = guided_prediction(loaded.model, loaded.network, part, t, held)
        noise = None
        if loaded.sampler.stochastic:
            noise = torch.randn(part.shape, generator=generator).to(x.device)
        done.append(loaded.sampler.step(part, prediction, last, noise))
    return torch.cat(done)
