"""A product's weights on the device: made there of a state's codes, one byte each or packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench.api import LoweringError
from tfq_bench.quant import int8_weight
from tfq_bench_cuda.kernels.specs import padded
from tfq_bench_cuda.kernels.unpack import Scratch, pack

if TYPE_CHECKING:
    from tfq_bench.quant import LayerPart, QuantizedLayer

__all__ = ["Weight", "join", "make_weight", "moved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Integers of one product, `[n, k]`.

    Args:
        stored: int8 `[n, k]`, or two a byte as uint8 `[n, k / 2]`, see `kernels.unpack`.
        scratch: where packed ones are expanded to; None for int8.
        reason: why they are not packed although that was asked for.
    """

    stored: Tensor
    scratch: Scratch | None = None
    reason: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, n and k."""
        rows, columns = self.stored.shape
        return rows, columns if self.scratch is None else 2 * columns

    def read(self) -> Tensor:
        """int8 `[n, k]`; of packed weights valid until any of the network's are read again."""
        return self.stored if self.scratch is None else self.scratch.expanded(self.stored)

    def rows(self, start: int, stop: int) -> Weight:
        """The rows [start, stop), a view."""
        return replace(self, stored=self.stored[start:stop])


def join(weights: Sequence[Weight], *, read: bool = True) -> Weight:
    """All rows below each other; packed when all are.

    Args:
        read: whether all of it will be unpacked at once.
    """
    first = weights[0]
    if all(weight.scratch is first.scratch for weight in weights):
        joined = replace(first, stored=torch.cat([weight.stored for weight in weights]))
    else:
        joined = Weight(
            stored=torch.cat([weight.read().clone() for weight in weights]),
            reason="joined with weights that are not packed",
        )
    if read:
        joined.read()  # makes room for all of it
    return joined


def moved(layer: QuantizedLayer, device: torch.device) -> QuantizedLayer:
    """The layer with its weights' codes and zero points on the device, where the rest is made."""
    parts = tuple(
        replace(part, weight=part.weight.to(device), zero_point=part.zero_point.to(device))
        for part in layer.parts
    )
    return replace(layer, parts=parts)


def make_weight(part: LayerPart, scratch: Scratch | None) -> Weight:
    """Codes less their zero point, each tap's channels side by side and filled up with zeros.

    Args:
        part: of a `moved` layer that `int8_refusal` accepts.
        scratch: to pack where the numbers fit in 4 bits; None leaves a byte each.

    Raises:
        LoweringError: unpacking gives other numbers on this machine.
    """
    taps = int8_weight(part).to(torch.int8)
    if taps.dim() == 4:
        taps = taps.permute(0, 2, 3, 1)
    taps = F.pad(taps, (0, padded(taps.shape[-1]) - taps.shape[-1]))
    weight = taps.reshape(len(taps), -1).contiguous()
    if scratch is None:
        return Weight(stored=weight)
    low, high = (int(value) for value in weight.aminmax())
    if low < -8 or high > 7:
        reason = f"weight minus zero point lies in [{low}, {high}], outside 4 bits"
        return Weight(stored=weight, reason=reason)
    found = Weight(stored=pack(weight), scratch=scratch)
    if not torch.equal(found.read(), weight):
        raise LoweringError(
            "unpacking 4-bit weights gives other numbers than were packed, on this machine. Set "
            "the backend's option 'weights' to 'int8', and report card, driver and Triton version."
        )
    return found
