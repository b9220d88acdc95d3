"""A quantized state on disk: packed tensors and a manifest, all under digests.

    tensors-0001.safetensors ...  codes packed at their true width, uint8 zero points, scales
    manifest.json                 {"content": {...}, "sha256": digest of its canonical JSON}

The content names the digest and size of every tensor file. Nothing is pickled, so nothing in a
folder can run code. Layers are written one by one and read when they are looked at, so that a
network may be larger than memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfq_bench.errors import StoreError, TfqError
from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.quant.state.packed import (
    describe_attention,
    describe_cache,
    describe_correction,
    describe_layer,
    restore_attention,
    restore_cache,
    restore_correction,
    restore_layer,
)
from tfq_bench.quant.state.quantized_state import QuantizedLayer, QuantizedState
from tfq_bench.quant.state.tensor_files import TensorFile, TensorReader, TensorWriter
from tfq_bench.types import Scheme

__all__ = ["LayerSpill", "load_state", "save_state"]

FORMAT = 4
"""Version of the layout on disk; another one is refused."""

MANIFEST = "manifest.json"

KEPT_BYTES = 32 * 2**20
"""Layers of a state that takes no more on disk stay in memory once they were read."""


class _StoredLayers(Mapping[str, QuantizedLayer]):
    """Layers that lie on disk; each is read when it is looked at.

    Args:
        keep: what was read stays in memory; else it is read anew each time.
    """

    def __init__(
        self,
        reader: TensorReader,
        entries: Mapping[str, Mapping[str, Any]],
        *,
        keep: bool = False,
    ) -> None:
        self._reader = reader
        self._entries = entries
        self._keep = keep
        self._kept: dict[str, QuantizedLayer] = {}

    def __getitem__(self, name: str) -> QuantizedLayer:
        if name in self._kept:
            return self._kept[name]
        entry = self._entries[name]
        with _in_words(f"layer '{printable(name, 120)}'"):
            layer = restore_layer(entry, self._reader.read(entry["file"], f"{name}/"))
        if self._keep:
            self._kept[name] = layer
        return layer

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class LayerSpill:
    """Collects a state's layers on disk while they are made.

    Args:
        folder: what lies there is deleted first; it must outlive the layers. None collects in
            memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._memory: dict[str, QuantizedLayer] = {}
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._folder = folder
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._writer = TensorWriter(folder)

    def add(self, layer: QuantizedLayer) -> None:
        """Takes the next layer in execution order."""
        if self._folder is None:
            self._memory[layer.name] = layer
        else:
            self._entries[layer.name] = _written(layer, self._writer)

    def layers(self) -> Mapping[str, QuantizedLayer]:
        """All layers by name; called once, at the end."""
        if self._folder is None:
            return self._memory
        return _StoredLayers(TensorReader(self._folder, self._writer.finish()), self._entries)


def save_state(state: QuantizedState, folder: Path) -> None:
    """Writes `tensors-*.safetensors` and `manifest.json` into `folder`; same state, same bytes.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = TensorWriter(folder)
        layers = [_written(layer, writer) for layer in state.layers.values()]
        tables: dict[str, Any] = {}
        caches = [describe_cache(cache, tables) for cache in state.cache.values()]
        attention = [describe_attention(one, tables) for one in state.attention.values()]
        tables |= {_bias_key(name): bias for name, bias in state.biases.items()}
        correction = describe_correction(state.correction, tables)
        file = writer.add(tables) if tables else None
        content = {
            "format": FORMAT,
            "model": state.model,
            "method": state.method,
            "scheme": asdict(state.scheme),
            "timesteps": list(state.timesteps),
            "layers": layers,
            "exempt": [list(pair) for pair in state.exempt.items()],
            "half": list(state.half),
            "cache": caches,
            "attention": attention,
            "biases": list(state.biases),
            **correction,
            "tables": file,
            "files": [asdict(file) for file in writer.finish()],
        }
        document = {"content": content, "sha256": _digest(content)}
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the quantized state cannot be written to {folder}: {error}.") from error


def load_state(folder: Path) -> QuantizedState:
    """The state that `save_state` wrote, on the CPU; its layers are read when they are looked at.

    Those of a small state are read once, others each time, as they may not fit in memory.

    Raises:
        StoreError: a file is missing, of another format, or not what was written.
    """
    content = _read_manifest(folder / MANIFEST)
    with _in_words(str(folder)):
        files = [TensorFile(**entry) for entry in content["files"]]
        reader = TensorReader(folder, files)
        reader.check()
        tables = reader.read(content["tables"], "") if content["tables"] else {}
        caches = [restore_cache(entry, tables) for entry in content["cache"]]
        attention = [restore_attention(entry, tables) for entry in content["attention"]]
        return QuantizedState(
            model=content["model"],
            method=content["method"],
            scheme=Scheme(**content["scheme"]),
            timesteps=tuple(content["timesteps"]),
            layers=_StoredLayers(
                reader,
                {entry["name"]: entry for entry in content["layers"]},
                keep=sum(file.bytes for file in files) <= KEPT_BYTES,
            ),
            exempt=dict(content["exempt"]),
            cache={cache.name: cache for cache in caches},
            half=tuple(content["half"]),
            attention={one.name: one for one in attention},
            biases={name: tables[_bias_key(name)] for name in content["biases"]},
            correction=restore_correction(content, tables),
        )


@contextlib.contextmanager
def _in_words(where: str) -> Iterator[None]:
    """Whatever a state's content makes Python raise, as a StoreError that says where.

    The digests hold, so whoever wrote the folder wrote something else than this format.
    """
    try:
        yield
    except StoreError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError) as error:
        raise _another_format(where, error) from error
    except (TypeError, ValueError, TfqError) as error:
        raise _another_format(where, error) from error


def _another_format(where: str, error: Exception) -> StoreError:
    return StoreError(
        f"{where}: expected a quantized state of format {FORMAT}, found "
        f"{type(error).__name__}: {printable(error, 400)}"
    )


def _bias_key(name: str) -> str:
    """Where the bias of an exempt layer lies among the tensors that belong to no layer."""
    return f"bias/{name}"


def _written(layer: QuantizedLayer, writer: TensorWriter) -> dict[str, Any]:
    """The manifest's entry of a layer whose tensors were given to `writer`."""
    tensors: dict[str, Any] = {}
    entry = describe_layer(layer, tensors)
    return {**entry, "file": writer.add(tensors)}


def _read_manifest(path: Path) -> dict[str, Any]:
    raw = _read(path)
    try:
        document = parse_json(raw)
        content, expected = document["content"], document["sha256"]
        found, version = _digest(content), content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: expected a manifest with `content` and `sha256`, found {len(raw)} bytes "
            f"that are none ({printable(repr(error), 200)}); delete the artefact's folder and run "
            "again."
        ) from error
    if found != expected:
        raise StoreError(
            f"{path}: expected content with sha256 {printable(expected, 80)}, found {found}; "
            "delete the artefact's folder and run again."
        )
    if version != FORMAT:
        raise StoreError(
            f"{path}: expected format {FORMAT}, found {printable(repr(version), 40)}; it was "
            "written by another version of tfq-bench: delete the artefact's folder and run again."
        )
    return dict(content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected a quantized state's file, found {error}.") from error


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
