"""A training state on disk: safetensors and JSON, in files small enough to carry.

Tensors are spread over files of at most 14 MB, named by `state.json`. Each save writes new files
and then replaces `state.json`, so that a process that is killed while it saves leaves the previous
checkpoint whole. Nothing is pickled.
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
    """Writes `groups` (name -> tensors) and the JSON-able `state`, replacing what `folder` held.

    Args:
        folder: made if absent. groups: keep their dtypes; group names hold no slash.
        state: JSON-able; its `step` (int) tells the files of one save from those of another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    part: dict[str, torch.Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal part, size
        if part:
            names.append(f"step-{state['step']}-part-{len(names)}.safetensors")
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
    for path in folder.glob("*.safetensors"):
        if path.name not in names:
            path.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """The tensors by group, on the CPU, and the state that `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: the folder holds no finished checkpoint.
    """
    if not (folder / "state.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected state.json and its safetensors files, found no finished "
            "checkpoint. Give the --out folder of tfq_bench_cifar10.train."
        )
    state = json.loads((folder / "state.json").read_text())
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name in state.pop("files"):
        for key, tensor in load_file(folder / name).items():
            group, _, tensor_name = key.partition("/")
            groups.setdefault(group, {})[tensor_name] = tensor
    return groups, state
