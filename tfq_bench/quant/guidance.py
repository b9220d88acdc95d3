"""Classifier-free guidance, applied by the harness, so that every network call has plain rows.

A model says how strong guidance is and what "no condition" means. Calibration data then hold a row
for each branch, so that quantizers need not know of guidance at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.types import CalibrationData
    from tfq_bench.types.models import Model

__all__ = ["branch_weights", "branches", "guided_prediction"]


def branches(
    model: Model, condition: Mapping[str, Tensor], *, device: str
) -> tuple[Mapping[str, Tensor], ...]:
    """What the network is told in its one or two branches, the unconditional one first.

    Args:
        condition: what `model.conditions` gave, `[B, ...]` by argument name.
    """
    guidance = model.guidance(device=device)
    if guidance is None:
        return (condition,)
    nothing = {}
    for name, value in condition.items():
        # Arguments that guidance leaves alone (an image size) are the same in both branches.
        row = guidance.condition.get(name, value)
        nothing[name] = row.expand(len(value), *row.shape[1:])
    return nothing, condition


def branch_weights(model: Model, data: CalibrationData) -> Tensor | None:
    """What each row of `data` counts for in the mean of the guided prediction; None without.

    The guided prediction is `(1 - scale) u + scale c`, so a row of `u` counts `2 (1 - scale)`,
    which is negative, and a row of `c` counts `2 scale`: on average 1.

    Returns:
        float64 `[M]` on the CPU.

    Raises:
        CalibrationError: a (step, image) without one row for each branch.
    """
    guidance = model.guidance(device=str(data.x.device))
    if guidance is None:
        return None
    seen: dict[tuple[int, int], int] = {}
    weights = []
    for pair in zip(data.step.tolist(), data.image.tolist(), strict=True):
        number = seen.get(pair, 0)
        seen[pair] = number + 1
        weights.append(2.0 * guidance.scale if number % 2 else 2.0 * (1.0 - guidance.scale))
    odd = [pair for pair, count in seen.items() if count % 2]
    if odd:
        raise CalibrationError(
            "under guidance calibration data hold a row for each of two branches; found one only "
            f"for step {odd[0][0]}, image {odd[0][1]}. Take both rows of a (step, image) or none."
        )
    return torch.tensor(weights, dtype=torch.float64)


@torch.no_grad()
def guided_prediction(
    model: Model, network: nn.Module, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]
) -> Tensor:
    """What the sampler steps on: `u + scale * (c - u)`, or the plain prediction without guidance.

    arXiv:2207.12598, equation 6. Both branches go through the network in one call of 2B rows, the
    unconditional ones first.

    Args:
        x: `[B, C, H, W]`. timestep: `[B]`. condition: `[B, ...]` by argument name.

    Returns:
        `[B, C, H, W]`.
    """
    guidance = model.guidance(device=str(x.device))
    if guidance is None:
        return model.predict(network, x, timestep, condition)
    without, given = branches(model, condition, device=str(x.device))
    stacked = {name: torch.cat([without[name], value]) for name, value in given.items()}
    both = model.predict(network, x.repeat(2, 1, 1, 1), timestep.repeat(2), stacked)
    unconditional, conditional = both.chunk(2)
    return unconditional + guidance.scale * (conditional - unconditional)
