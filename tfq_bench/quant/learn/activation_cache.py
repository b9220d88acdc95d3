"""Outputs of blocks that will not change any more, played back instead of being computed again.

Recording the inputs of block k means running the network up to it. Were all blocks before it
computed each time, the cost would grow with the square of the depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["Replay"]


class Replay:
    """Block outputs of one network over M calibration samples, as far as they fit in memory.

    Values are those of the batch that they were computed in, and a block's output is always laid
    out contiguously, computed or played back. So what is kept changes nothing as long as the
    samples come in the same batches.

    Args:
        blocks: names of modules whose output may be kept; one that is no module is passed over.
        count: M.
        limit: bytes that are kept at most; a block beyond them is computed each time.
    """

    def __init__(
        self, network: nn.Module, blocks: Sequence[str], *, count: int, limit: int
    ) -> None:
        modules = dict(network.named_modules())
        self._modules = {name: modules[name] for name in blocks if name in modules}
        self._count, self._left = count, limit
        self._kept: dict[str, _Kept | None] = {}
        self._rows = slice(0, 0)

    def forget(self) -> None:
        """Drops what was recorded, since the network now computes something else."""
        for kept in self._kept.values():
            self._left += 0 if kept is None else kept.size
        self._kept = {}

    @contextmanager
    def rows(self, rows: slice) -> Iterator[None]:
        """While open, blocks known for these samples are played back, others are recorded."""
        self._rows = rows
        for name, module in self._modules.items():
            module.__dict__["forward"] = self._playing(name, module.forward)
        try:
            yield
        finally:
            for module in self._modules.values():
                del module.__dict__["forward"]

    def _playing(self, name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        called = False

        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal called
            kept = self._kept.get(name)
            if called:
                # A block that runs twice per network call has no single output per sample.
                self._drop(name)
            elif kept is not None and kept.filled == self._count:
                called = True
                return kept.read(self._rows)
            output = pytree.tree_map_only(Tensor, Tensor.contiguous, compute(*args, **kwargs))
            if not called:
                self._record(name, output)
            called = True
            return output

        return forward

    def _record(self, name: str, output: Any) -> None:
        if name not in self._kept:
            self._kept[name] = self._reserve(output)
        kept = self._kept[name]
        if kept is not None and kept.filled == self._rows.start:
            kept.write(self._rows, output)

    def _reserve(self, output: Any) -> _Kept | None:
        leaves, spec = pytree.tree_flatten(output)
        size = self._rows.stop - self._rows.start
        if not all(isinstance(leaf, Tensor) and len(leaf) == size for leaf in leaves):
            return None
        needed = sum(leaf[0].numel() * leaf.element_size() for leaf in leaves) * self._count
        if needed > self._left:
            return None
        self._left -= needed
        return _Kept([leaf.new_empty((self._count, *leaf.shape[1:])) for leaf in leaves], spec)

    def _drop(self, name: str) -> None:
        kept = self._kept.get(name)
        self._left += 0 if kept is None else kept.size
        self._kept[name] = None


class _Kept:
    """The outputs of one block, filled batch by batch."""

    def __init__(self, tensors: list[Tensor], spec: Any) -> None:
        self._tensors, self._spec = tensors, spec
        self.filled = 0
        self.size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def read(self, rows: slice) -> Any:
        """A copy, because the network may write into what a block returns."""
        return pytree.tree_unflatten([held[rows].clone() for held in self._tensors], self._spec)

    def write(self, rows: slice, output: Any) -> None:
        for held, leaf in zip(self._tensors, pytree.tree_leaves(output), strict=True):
            held[rows].copy_(leaf)
        self.filled = rows.stop
