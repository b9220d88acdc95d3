"""A network and a call of it on their way to another process: its structure, and its tensors.

The structure is pickled by us for a process that we start, and names classes, which must be
installed there; the tensors, which may be gigabytes, travel beside it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["pack", "unpack"]


def pack(something: Any) -> list[Tensor]:
    """The structure of any Python object as bytes, `uint8 [N]`, and then its tensors."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(something)
    return [torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8), *pickler.tensors]


def unpack(tensors: Sequence[Tensor]) -> Any:
    """The object again.

    Raises:
        Exception: its classes are not here.
    """
    structure, *others = tensors
    return _Unpickler(io.BytesIO(structure.numpy().tobytes()), others).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=4)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, found: Any) -> tuple[int, bool] | None:
        if not isinstance(found, Tensor):
            return None
        if id(found) not in self._numbers:
            self._numbers[id(found)] = len(self.tensors)
            self.tensors.append(found)
        return self._numbers[id(found)], isinstance(found, nn.Parameter)

    def reducer_override(self, found: Any) -> Any:
        if not isinstance(found, nn.Module):
            return NotImplemented
        function, arguments, state, *more = found.__reduce_ex__(4)
        if isinstance(state, dict):  # whoever watches the module here does not watch it there
            state = {
                name: type(value)() if name.endswith(("_hooks", "_with_kwargs")) else value
                for name, value in state.items()
            }
        return function, arguments, state, *more


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = list(tensors)

    def persistent_load(self, found: tuple[int, bool]) -> Tensor:
        number, parameter = found
        tensor = self._tensors[number]
        if parameter and not isinstance(tensor, nn.Parameter):
            self._tensors[number] = nn.Parameter(tensor, requires_grad=False)
        return self._tensors[number]
