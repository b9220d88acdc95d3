"""What a block sees and what it should answer, recorded once for all iterations of its learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tfq_bench.errors import CalibrationError
from tfq_bench.store.scratch import scratch_folder

if TYPE_CHECKING:
    from tfq_bench.quant.learn.activation_cache import Replay
    from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
    from tfq_bench.types import CalibrationData

__all__ = ["Captured", "Replays", "capture_block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """What is known of the two networks, see `Replay`."""

    fake_quant: Replay
    full: Replay


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captured:
    """Inputs and targets of one block for all M calibration samples.

    Args:
        inputs: every tensor among the block's arguments that has a row per sample, `[M, ...]`.
        targets: the full-precision block's output, `[M, ...]`.
        steps: int64 `[M]`, index of each sample's sampler step.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    steps: Tensor
    leaves: tuple[Any, ...]
    slots: tuple[int, ...]
    spec: Any

    def arguments(self, rows: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the block's `forward` with `rows` in the places of `inputs`."""
        leaves = list(self.leaves)
        for slot, tensor in zip(self.slots, rows, strict=True):
            leaves[slot] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs


class _Stop(Exception):
    """Ends a network's forward pass once the block was seen."""


@contextmanager
def capture_block(
    fake_quant: FakeQuantNetwork,
    data: CalibrationData,
    name: str,
    *,
    limit: int,
    batch: int,
    replays: Replays,
) -> Iterator[Captured]:
    """The block's inputs in the fake-quantized network as it is, and its full-precision targets.

    Args:
        name: of the block's module.
        limit: bytes kept on the device; more is kept in a memory-mapped file that is deleted on
            leaving the context.
        batch: samples per network call; the same for all blocks that share `replays`.
        replays: blocks before this one that need not be computed again; extended here.

    Raises:
        CalibrationError: the block is not run by the network.
    """
    with scratch_folder() as folder, torch.no_grad():
        count = len(data.x)
        filled: list[Tensor] = []
        leaves: list[Any] = []
        slots: list[int] = []
        spec: Any = None
        for start in range(0, count, batch):
            rows = slice(start, min(start + batch, count))
            with replays.fake_quant.rows(rows):
                args = _inputs(fake_quant, data, name, rows)
            with replays.full.rows(rows):
                target = _target(fake_quant, data, name, rows)
            leaves, spec = pytree.tree_flatten(args)
            size = rows.stop - rows.start
            slots = [
                slot
                for slot, leaf in enumerate(leaves)
                if isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == size
            ]
            tensors = [*(leaves[slot] for slot in slots), target]
            if not filled:
                filled = _storage(tensors, count, limit, folder)
            for held, tensor in zip(filled, tensors, strict=True):
                held[rows].copy_(tensor)
        yield Captured(
            inputs=tuple(filled[:-1]),
            targets=filled[-1],
            steps=data.step.to(data.x.device),
            leaves=tuple(None if slot in slots else leaf for slot, leaf in enumerate(leaves)),
            slots=tuple(slots),
            spec=spec,
        )


def _storage(tensors: list[Tensor], count: int, limit: int, folder: Path) -> list[Tensor]:
    """Room for `count` rows of each tensor: on its device, or in files beyond `limit` bytes."""
    row_bytes = sum(t[0].numel() * t.element_size() for t in tensors)
    shapes = [(count, *t.shape[1:]) for t in tensors]
    if row_bytes * count <= limit:
        return [t.new_empty(shape) for t, shape in zip(tensors, shapes, strict=True)]
    return [
        torch.from_file(
            str(folder / f"{number}.bin"), shared=True, size=count * t[0].numel(), dtype=t.dtype
        ).reshape(shape)
        for number, (t, shape) in enumerate(zip(tensors, shapes, strict=True))
    ]


def _inputs(
    fake_quant: FakeQuantNetwork, data: CalibrationData, name: str, rows: slice
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise _Stop

    module = fake_quant.network.get_submodule(name)
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    _run(
        handle,
        lambda: fake_quant.predict(
            data.x[rows], data.timestep[rows], _rows(data, rows), data.step[rows]
        ),
    )
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = _first(seen, name)
    return arguments


def _target(fake_quant: FakeQuantNetwork, data: CalibrationData, name: str, rows: slice) -> Tensor:
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])
        raise _Stop

    loaded = fake_quant.loaded
    handle = loaded.network.get_submodule(name).register_forward_hook(keep)
    _run(
        handle,
        lambda: loaded.model.predict(
            loaded.network, data.x[rows], data.timestep[rows], _rows(data, rows)
        ),
    )
    target: Tensor = _first(seen, name)
    return target


def _run(handle: Any, call: Callable[[], Any]) -> None:
    try:
        call()
    except _Stop:
        pass
    finally:
        handle.remove()


def _first(seen: list[Any], name: str) -> Any:
    if not seen:
        raise CalibrationError(f"block '{name}' is not run by the network; it cannot be learned.")
    return seen[0]


def _rows(data: CalibrationData, rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in data.condition.items()}
