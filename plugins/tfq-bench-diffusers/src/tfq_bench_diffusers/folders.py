"""A model's folder and its configurations: from disk, never from the network. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from tfq_bench import api

__all__ = ["Folder", "cached_snapshot", "find_folder", "read_json", "weights_fault"]

UNNAMED = "diffusers"
"""Name of the model that is whatever option `source` says."""

DENOISERS = ("unet", "transformer")
DECODERS = ("vae", "vqvae", "movq")
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "class_embedder")
"""What makes conditions. `class_embedder` is ours, see `convert`: a token for each class."""


class Folder:
    """A model in diffusers' format: a pipeline's folder, or that of a lone network.

    Args:
        path: exists.

    Raises:
        AssetError: it holds no configuration.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = path / "model_index.json"
        self.parts: dict[str, Any] = read_json(index) if index.is_file() else {}
        if not self.parts and not (path / "config.json").is_file():
            raise api.AssetError(
                f"{path}: expected a model in diffusers' format (model_index.json, or config.json "
                "of a network), found neither. Save it with `save_pretrained`."
            )

    def part(self, *names: str) -> Path | None:
        """The folder of the first of these components that there is; None when there is none.

        Old repositories hold their only network and scheduler at the top.
        """
        for name in names:
            if (self.path / name).is_dir():
                return self.path / name
        top = "scheduler_config.json" if "scheduler" in names else "config.json"
        wanted = "scheduler" in names or bool(set(names) & set(DENOISERS))
        return self.path if wanted and (self.path / top).is_file() else None

    def network(self) -> Path:
        """The denoising network's folder."""
        found = self.part(*DENOISERS)
        if found is None:
            raise api.AssetError(
                f"{self.path}: expected a folder {' or '.join(DENOISERS)}, found "
                f"{', '.join(sorted(self.parts)) or 'no components'}."
            )
        return found

    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration; empty when there is none (diffusers' defaults hold)."""
        found = self.part("scheduler")
        return {} if found is None else read_json(found / "scheduler_config.json")

    def digest(self, *, random: bool) -> str:
        """SHA-256 over all files that are read: configurations, tokenizers, weights.

        Args:
            random: the network's weights and the text encoders are not read.

        Raises:
            AssetError: a file that will be read is not there, as after a broken download.
        """
        used = [self.part(*DENOISERS), self.part(*DECODERS), self.part("scheduler")]
        if not random:
            self.check_complete()
            used += [self.part(name) for name in TEXT]
        files = [self.path / "model_index.json"] if self.parts else []
        for folder in dict.fromkeys(folder for folder in used if folder is not None):
            drawn = random and folder == used[0]
            files += _texts(folder) if drawn else [*_texts(folder), *_weights(folder)]
        total = hashlib.sha256()
        for file in dict.fromkeys(files):
            total.update(f"{file.relative_to(self.path)}\0{_sha256(file)}\n".encode())
        return total.hexdigest()

    def check_complete(self) -> None:
        """AssetError unless every component that will be read is here with its weights."""
        named = [name for name, what in self.parts.items() if isinstance(what, list) and any(what)]
        known = (*DENOISERS, *DECODERS, *TEXT)
        lacking: dict[str, str] = {}
        for name in [name for name in named if name in known] or DENOISERS[:1]:
            folder = self.part(name)
            fault = "no folder" if folder is None else ""
            if folder is not None and not name.startswith("tokenizer"):
                fault = weights_fault(folder)
            if fault:
                lacking[name] = fault
        if lacking:
            found = "; ".join(f"{name}: {fault}" for name, fault in lacking.items())
            raise api.AssetError(
                f"{self.path}: expected all components with their weights, found {found}. Fetch "
                "the model again; files of a variant (such as fp16) are not read."
            )


def find_folder(source: str, revision: str, *, name: str) -> Folder:
    """The folder of a local path, or of a hub id in the local cache.

    Args:
        name: of the model, for the message.

    Raises:
        AssetError: it is not on this machine; says how to get it.
    """
    if not source:
        raise api.AssetError(
            f"model '{name}': option 'source' is empty; expected a local folder in diffusers' "
            "format or a hub id."
        )
    if Path(source).expanduser().is_dir():
        return Folder(Path(source).expanduser())
    path = cached_snapshot(source, revision)
    if path is None:
        wanted = f"{source} at {revision}" if revision else source
        what = "--suite SUITE" if name == UNNAMED else name
        raise api.AssetError(
            f"model '{name}' needs {wanted}, which is neither a folder nor in the cache of the "
            f"Hugging Face hub on this machine. Fetch it with 'tfq-bench assets fetch {what}', "
            "give a local folder with option 'source', or take weights = \"random\" for speed and "
            "memory."
        )
    return Folder(path)


def cached_snapshot(source: str, revision: str) -> Path | None:
    """Where the hub's cache has a repository, maybe in part; None when it has none of it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; AssetError when there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise api.AssetError(
            f"{path}: expected a JSON object, found {error or 'another'}."
        ) from None
    return found


def weights_fault(folder: Path) -> str:
    """What is wrong with a component's weight files; empty when all are there."""
    weights = _weights(folder)
    if not weights:
        return "no weights"
    found = {path.name for path in weights}
    # An index beside an undivided file is not needed.
    if all("-of-" in name for name in found):
        for index in folder.glob(f"*{weights[0].suffix}.index.json"):
            shards = set(dict(read_json(index).get("weight_map", {})).values())
            absent = sorted(shards - found)
            if absent and index.name.count(".") == 3:  # variants have a dot more
                return f"{len(absent)} of {len(shards)} weight files absent, {absent[0]} first"
    return ""


def _files(folder: Path) -> list[Path]:
    """The files of a component, without those of variants."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.count(".") == 1)


def _texts(folder: Path) -> list[Path]:
    """Configurations and vocabularies."""
    return [path for path in _files(folder) if path.suffix in (".json", ".txt", ".model")]


def _weights(folder: Path) -> list[Path]:
    """What diffusers reads of a component: safetensors before pickles."""
    files = _files(folder)
    tensors = [path for path in files if path.suffix == ".safetensors"]
    return tensors or [path for path in files if path.suffix == ".bin"]


def _sha256(path: Path) -> str:
    status = path.stat()
    return _hashed(path.resolve(), status.st_mtime_ns, status.st_size)


@cache
def _hashed(path: Path, mtime: int, size: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
