"""Replicates of rounding: weight scales that differ by a few percent from seed to seed.

Nearest rounding of weights depends on nothing random, so another calibration seed gives the same
codes. Whether their errors happen to add up or to cancel is chance all the same, and at 4 bits a
large part of what is measured. A channel whose scale is multiplied by a factor close to 1 is
rounded about as well as before, on another grid: a few such draws show how much of a result is
chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.seeds import generator as generator_for

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ScaleJitter"]


class ScaleJitter:
    """Factors of weight scales, drawn apart for every layer.

    What a layer gets does not depend on which other layers are rounded, so two policies that share
    a seed differ only in the layers that they treat differently.

    Args:
        half_width: of the uniform draw around 1, from 0 to below 1; 0.03 is 3 % to either side, so
            that no range grows or shrinks by more. With 0 every factor is exactly 1.
        generator: CPU; one number is drawn from it, none when `half_width` is 0.

    Raises:
        QuantizationError: another half width; a scale could become 0 or change its sign.
    """

    def __init__(self, half_width: float, *, generator: torch.Generator) -> None:
        if not 0.0 <= half_width < 1.0:
            raise QuantizationError(
                f"the jitter of weight scales must be at least 0 and below 1, found {half_width}. "
                "A few percent (0.03) are enough."
            )
        self.half_width = half_width
        self._seed = int(torch.randint(2**62, (), generator=generator)) if half_width else 0

    def factors(self, name: str, channels: int) -> Tensor:
        """What the scale of each output channel is multiplied by.

        Args:
            name: of the layer, or of a part of its input that has scales of its own; the same name
                gets the same factors.
            channels: C_out.

        Returns:
            float32 `[C_out]` on the CPU, within `[1 - half_width, 1 + half_width]`.
        """
        if not self.half_width:
            return torch.ones(channels, dtype=torch.float32, device="cpu")
        drawn = torch.rand(
            channels,
            generator=generator_for(self._seed, f"jitter of {name}"),
            dtype=torch.float32,
            device="cpu",
        )
        return 1.0 + self.half_width * (2.0 * drawn - 1.0)
