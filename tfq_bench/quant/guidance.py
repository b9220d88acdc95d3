"""Classifier-free guidance, applied by the harness, so that every network call has plain rows.

A model says how strong guidance is and what "no condition" means. Calibration data then hold a row
for each branch, so that quantizers need not know of guidance at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.protocols import Model

__all__ = ["branches", "guided_prediction"]


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
