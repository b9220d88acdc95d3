"""A training state on disk: safetensors and JSON, in files small enough to carry.

Weights and their moving average are float32, the optimizer's moments bfloat16. Tensors are spread
over files of at most 14 MB; `state.json` is written last and names them, so that a checkpoint
without it is not one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["load_checkpoint", "save_checkpoint"]

FILE_BYTES = 14_000_000


def save_checkpoint(
    folder: Path, groups: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]
) -> None:
    """Writes `groups` (name -> tensors) and the JSON-able `state` into `folder`, replacing it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").unlink(missing_ok=True)
    for old in folder.glob("*.safetensors"):
        old.unlink()
    names: list[str] = []
    part: dict[str, torch.Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal part, size
        if part:
            names.append(f"part-{len(names)}.safetensors")
            save_file(part, folder / names[-1])
        part, size = {}, 0

    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            value = tensor.detach().cpu().contiguous()
            nbytes = value.numel() * value.element_size()
            if size + nbytes > FILE_BYTES:
                flush()
            part[f"{group}/{name}"] = value
            size += nbytes
    flush()
    target = folder / "state.json.tmp"
    target.write_text(json.dumps({**state, "files": names}))
    target.replace(folder / "state.json")


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """What `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: the folder holds no finished checkpoint.
    """
    state = json.loads((folder / "state.json").read_text())
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name in state.pop("files"):
        for key, tensor in load_file(folder / name).items():
            group, _, tensor_name = key.partition("/")
            groups.setdefault(group, {})[tensor_name] = tensor
    return groups, state
