"""Outputs of whole blocks for all calibration samples, so that none is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tfq_bench.border import CalibrationData
    from tfq_bench.quant.working import WorkingNetwork

__all__ = ["BlockOutputs", "tensor_of"]


class BlockOutputs:
    """What blocks answer, kept where it fits.

    Full-precision outputs are the targets of learning. Outputs of blocks that are done stand in for
    these blocks while inputs of later ones are recorded: each block then runs once, not once for
    every later block.

    Args:
        limit: bytes that both kinds may take together; when they would take more, none is kept.
        batch: samples per network call.
    """

    def __init__(
        self, working: WorkingNetwork, data: CalibrationData, *, limit: int, batch: int
    ) -> None:
        self._working, self._data, self._batch = working, data, batch
        self._names = [block.name for block in working.loaded.topology.blocks]
        self._targets: dict[str, Tensor] = {}
        self._done: dict[str, Tensor] = {}
        first = self._full_precision(slice(0, batch))
        row_bytes = sum(t[0].numel() * t.element_size() for t in first.values())
        self._kept = len(first) == len(self._names) and 2 * row_bytes * len(data.x) <= limit
        if self._kept:
            chunks = [self._full_precision(rows) for rows in self._chunks()]
            self._targets = {name: torch.cat([c[name] for c in chunks]) for name in self._names}

    def target(self, name: str, rows: slice) -> Tensor | None:
        """The full-precision block's output, None when it is not kept."""
        return self._targets[name][rows] if name in self._targets else None

    @torch.no_grad()
    def remember(self, name: str, answer: Callable[[slice], Tensor]) -> None:
        """Keeps what a block that is done makes of its inputs; `answer` computes some rows."""
        if self._kept:
            self._done[name] = torch.cat([answer(rows) for rows in self._chunks()])

    def forget(self) -> None:
        """Drops the outputs of working blocks, because the network has changed before them."""
        self._done.clear()

    @contextmanager
    def standing_in(self, rows: slice) -> Iterator[None]:
        """While open, blocks that are done answer what they answered for these samples."""
        modules = {name: self._working.network.get_submodule(name) for name in self._done}
        for name, module in modules.items():
            module.forward = _answering(self._done[name][rows])
        try:
            yield
        finally:
            for module in modules.values():
                del module.forward

    def _chunks(self) -> list[slice]:
        count = len(self._data.x)
        return [slice(i, min(i + self._batch, count)) for i in range(0, count, self._batch)]

    @torch.no_grad()
    def _full_precision(self, rows: slice) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                found.setdefault(name, tensor_of(output))

            return hook

        loaded, data = self._working.loaded, self._data
        handles = [
            loaded.network.get_submodule(name).register_forward_hook(keep(name))
            for name in self._names
        ]
        try:
            condition = {name: value[rows] for name, value in data.condition.items()}
            loaded.model.predict(loaded.network, data.x[rows], data.timestep[rows], condition)
        finally:
            for handle in handles:
                handle.remove()
        return found


def tensor_of(output: Any) -> Tensor:
    """The tensor that a block returns, alone or first in a tuple."""
    tensor: Tensor = output if isinstance(output, Tensor) else output[0]
    return tensor


def _answering(output: Tensor) -> Callable[..., Tensor]:
    return lambda *_, **__: output
