"""A training state on disk: safetensors and JSON, in files small enough to carry.

Tensors are spread over files of at most 14 MB, named by `state.json`. Each save writes new files
and then replaces `state.json`, so that a process that is killed while it saves leaves the previous
checkpoint whole. Nothing is pickled. `state.json` holds the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

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
    digests: dict[str, str] = {}
    part: dict[str, torch.Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal part, size
        if part:
            name, content = f"step-{state['step']}-part-{len(digests)}.safetensors", save(part)
            digests[name] = hashlib.sha256(content).hexdigest()
            (folder / name).write_bytes(content)
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
    target.write_text(json.dumps({**state, "files": list(digests), "sha256": digests}))
    target.replace(folder / "state.json")
    for path in folder.glob("*.safetensors"):
        if path.name not in digests:
            path.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """The tensors by group, on the CPU, and the state that `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: the folder holds no finished checkpoint.
        ValueError: a file is missing or is not the one that was saved.
    """
    if not (folder / "state.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected state.json and its safetensors files, found no finished "
            "checkpoint. Give the --out folder of tfq_bench_cifar10.train."
        )
    try:
        state = json.loads((folder / "state.json").read_text())
    except ValueError as error:
        raise ValueError(
            f"{folder / 'state.json'}: expected the JSON of a checkpoint, found another text "
            f"({error}). Copy the whole checkpoint again, or train anew without --resume."
        ) from error
    groups: dict[str, dict[str, torch.Tensor]] = {}
    digests = state.pop("sha256", {})  # absent in checkpoints of earlier versions
    for name in state.pop("files"):
        for key, tensor in load(_checked(folder / name, digests.get(name))).items():
            group, _, tensor_name = key.partition("/")
            groups.setdefault(group, {})[tensor_name] = tensor
    return groups, state


def _checked(path: Path, digest: str | None) -> bytes:
    """The content of the file at `path`; its digest is checked when there is one."""
    content = path.read_bytes() if path.is_file() else None
    found = "no file" if content is None else hashlib.sha256(content).hexdigest()
    if content is None or digest not in (None, found):
        raise ValueError(
            f"{path}: expected the file that was saved (SHA-256 {digest or 'unknown'}), found "
            f"{found}. Copy the whole checkpoint again, or train anew without --resume."
        )
    return content
