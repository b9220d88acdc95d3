"""Messages between two processes: a line of JSON and the plain bytes of tensors.

Nothing that comes from the other process is executed: what is read is numbers and text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

import torch
from torch import Tensor

__all__ = ["receive", "send"]


def send(stream: IO[bytes], message: Mapping[str, Any], tensors: Iterable[Tensor] = ()) -> None:
    """Writes a message of plain JSON and tensors of any shape and dtype, from any device."""
    given = [tensor.detach().to("cpu").contiguous() for tensor in tensors]
    shapes = [[str(one.dtype).removeprefix("torch."), list(one.shape)] for one in given]
    stream.write(json.dumps([dict(message), shapes]).encode() + b"\n")
    for tensor in given:
        stream.write(_bytes(tensor))
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[Tensor]]:
    """A message and its tensors, on the CPU.

    Raises:
        EOFError: the other process has ended.
        ValueError: what it wrote is no message.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message, shapes = json.loads(line)
    tensors = []
    for dtype, shape in shapes:
        tensor = torch.empty(shape, dtype=getattr(torch, dtype))
        left = memoryview(_bytes(tensor))
        while left:
            read = stream.readinto(left)  # type: ignore[attr-defined]
            if not read:
                raise EOFError
            left = left[read:]
        tensors.append(tensor)
    return message, tensors


def _bytes(tensor: Tensor) -> Any:
    """The memory of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
