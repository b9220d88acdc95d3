"""Finished blocks of a reconstruction on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

if TYPE_CHECKING:
    from tfq_bench.quant.working import WorkingNetwork

__all__ = ["BlockFiles"]


class BlockFiles:
    """One safetensors file per finished block, each written atomically.

    Args:
        folder: where they are; None keeps nothing.
        identity: digest of everything the result depends on; files of another are ignored.
    """

    def __init__(self, folder: Path | None, *, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def save(
        self, number: int, working: WorkingNetwork, layers: list[str], note: dict[str, Any]
    ) -> None:
        """Keeps the parameters of `layers`, and `note` (JSON)."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, torch.Tensor] = {}
        for name in layers:
            for index, part in enumerate(working.layer(name).pieces):
                tensors[f"{name}:{index}:codes"] = part.codes.cpu()
                if part.activation is not None:
                    tensors[f"{name}:{index}:log_scale"] = part.activation.log_scale.detach().cpu()
        path = self._path(number)
        temporary = path.with_suffix(".part")
        save_file(
            tensors, temporary, metadata={"identity": self._identity, "note": json.dumps(note)}
        )
        temporary.replace(path)

    def load(self, number: int, working: WorkingNetwork) -> dict[str, Any] | None:
        """Puts a block's parameters back and returns its note; None when there is none to use."""
        if self._folder is None:
            return None
        try:
            with safe_open(self._path(number), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != self._identity:
                    return None
                for key in file.keys():  # noqa: SIM118
                    name, index, field = key.rsplit(":", 2)
                    part = working.layer(name).pieces[int(index)]
                    if field == "codes":
                        part.codes.copy_(file.get_tensor(key))
                    elif part.activation is not None:
                        part.activation.log_scale.data.copy_(file.get_tensor(key))
        except (OSError, SafetensorError):
            return None  # not there yet, or cut off: the block is learned again
        note: dict[str, Any] = json.loads(metadata["note"])
        return note

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"block-{number:04d}.safetensors"
