"""Finished blocks of a reconstruction on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tfq_bench.errors import StoreError
from tfq_bench.keys import canonical

if TYPE_CHECKING:
    from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
    from tfq_bench.types import CalibrationData

__all__ = ["BlockFiles", "identity"]


def identity(
    fake_quant: FakeQuantNetwork, data: CalibrationData, settings: Mapping[str, Any]
) -> str:
    """Digest of everything that learning starts from, to the bit.

    Args:
        settings: what else the result depends on, as JSON.
    """
    loaded = fake_quant.loaded
    told = {
        "model": loaded.model.digest,
        "timesteps": loaded.sampler.timesteps,
        "device": torch.device(loaded.device).type,
        **settings,
    }
    content = hashlib.sha256(canonical(told).encode())

    def add(name: str, tensor: torch.Tensor) -> None:
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().to("cpu").contiguous().flatten()
        content.update(plain.view(torch.uint8).numpy().data)

    for field, held in (("x", data.x), ("timestep", data.timestep), ("step", data.step)):
        add(field, held)
    for name, held in sorted(data.condition.items()):
        add(f"condition {name}", held)
    for name, layer in fake_quant.layers.items():
        for index, part in enumerate(layer.pieces):
            add(f"{name}:{index}:codes", part.codes)
            add(f"{name}:{index}:scale", part.scale)
            if part.activation is not None:
                add(f"{name}:{index}:steps", part.activation.scale())
                add(f"{name}:{index}:zeros", part.activation.zero_point)
    return content.hexdigest()


class BlockFiles:
    """One safetensors file per finished block, each written atomically.

    Args:
        folder: where they are; None keeps nothing.
        identity: digest of everything the result depends on; files of another are ignored.
    """

    def __init__(self, folder: Path | None, *, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def save(
        self, number: int, fake_quant: FakeQuantNetwork, layers: list[str], note: dict[str, Any]
    ) -> None:
        """Keeps the parameters of `layers`, and `note` (JSON).

        Raises:
            StoreError: disk full, no permission.
        """
        if self._folder is None:
            return
        tensors: dict[str, torch.Tensor] = {}
        for name in layers:
            for index, part in enumerate(fake_quant.layer(name).pieces):
                tensors[f"{name}:{index}:codes"] = part.codes.cpu()
                if part.activation is not None:
                    tensors[f"{name}:{index}:log_ratio"] = part.activation.log_ratio.detach().cpu()
        path = self._path(number)
        temporary = path.with_suffix(".part")
        metadata = {"identity": self._identity, "note": json.dumps(note)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, metadata=metadata)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"the checkpoint {path} cannot be written: {error}.") from error

    def load(self, number: int, fake_quant: FakeQuantNetwork) -> dict[str, Any] | None:
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
                    part = fake_quant.layer(name).pieces[int(index)]
                    if field == "codes":
                        part.codes.copy_(file.get_tensor(key))
                    elif part.activation is not None:
                        part.activation.log_ratio.data.copy_(file.get_tensor(key))
        except (OSError, SafetensorError):
            return None  # not there yet, or cut off: the block is learned again
        note: dict[str, Any] = json.loads(metadata["note"])
        return note

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"block-{number:04d}.safetensors"
