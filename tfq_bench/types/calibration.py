"""What a quantizer asks to see of the full-precision sampler, and what it then sees.

Symbols: `t` timestep, `M` calibration samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CalibrationData",
    "CalibrationNeeds",
    "Guidance",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationNeeds:
    """Which states of the full-precision sampler a quantizer wants to see.

    Args:
        samples: pairs (step index in execution order, image index), without duplicates. Empty
            when the method needs no data.
    """

    samples: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """Classifier-free guidance (arXiv:2207.12598): `u + scale * (c - u)` of two predictions.

    Args:
        scale: 1 is the conditional prediction alone; then there is no guidance to speak of.
        condition: what the network is told when it is to know no condition, by argument name:
            tensors `[1, ...]`, or `[B, ...]` where it differs between images.
    """

    scale: float
    condition: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationData:
    """States captured in one pass of the full-precision sampler, ordered by (step, image).

    Under guidance each (step, image) has two rows, the unconditional one first: the network sees
    both, and every row is a network call of its own.

    Args:
        x: float32 `[M, C, H, W]`, the network's inputs x_t.
        timestep: `[M]`, the value passed to the network (float32 when fractional, else int64).
        step: int64 `[M]`, index of the sampler step in execution order.
        image: int64 `[M]`, index of the image.
        condition: tensors `[M, ...]` by argument name, empty for an unconditional model.
    """

    x: Tensor
    timestep: Tensor
    step: Tensor
    image: Tensor
    condition: Mapping[str, Tensor] = field(default_factory=dict)
