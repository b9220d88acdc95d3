"""What a timestep does to the blocks of a network, computed once and taken by each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tfq_bench_cuda.blocks.fused import FusedBlock

__all__ = ["Modulations"]


class Modulations:
    """Holds what was computed for all blocks until each has taken its own, once.

    Args:
        compute: of a timestep, classes and a type float32 `[L, 6, B, C]`, one for each block, and
            the first block's embedding `[B, C]` or None.
    """

    def __init__(
        self, blocks: Sequence[FusedBlock], compute: Callable[..., tuple[Tensor, Tensor | None]]
    ) -> None:
        self._places = {id(block): place for place, block in enumerate(blocks)}
        self._step = blocks[0].layers[0].step
        self._compute = compute
        self._given: tuple[Any, ...] = ()
        self._versions: tuple[int | None, ...] = ()
        self._left: dict[int, Tensor] = {}
        self._embedding: Tensor | None = None

    def take(
        self, block: FusedBlock, timestep: Tensor, labels: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """Shift, scale and gate of a block's attention, then of its feed-forward: `[6, B, C]`."""
        place = self._places[id(block)]
        if place not in self._left or not self._holds(timestep, labels, dtype):
            six, self._embedding = self._compute(timestep, labels, dtype)
            self._left = dict(enumerate(six.unbind()))
            self._given = (timestep, labels, dtype)
            self._versions = self._seen()
        return self._left.pop(place)

    def take_embedding(
        self, timestep: Tensor, labels: Tensor | None, dtype: torch.dtype
    ) -> Tensor | None:
        """The first block's embedding, None where it was computed of something else, or taken."""
        held, self._embedding = self._embedding, None
        return held if self._holds(timestep, labels, dtype) else None

    def _holds(self, *given: Any) -> bool:
        """Whether these very tensors were given, and neither they nor the step changed since."""
        alike = len(self._given) == len(given) and all(
            one is other for one, other in zip(self._given, given, strict=True)
        )
        return alike and self._versions == self._seen()

    def _seen(self) -> tuple[int | None, ...]:
        tensors = [t for t in (*self._given, self._step.index) if isinstance(t, Tensor)]
        return tuple(None if t.is_inference() else t._version for t in tensors)
