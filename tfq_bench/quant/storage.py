"""A quantized state on disk: packed tensors and a manifest, both under a digest.

    tensors.safetensors   codes packed at their true width, uint8 zero points, float32 scales
    manifest.json         {"content": {...}, "sha256": digest of the content's canonical JSON}

The content names the digest and size of the tensor file. Nothing is pickled, so nothing in a
folder can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tfq_bench.border import Scheme
from tfq_bench.errors import StoreError, TfqError
from tfq_bench.quant.bits import pack, unpack
from tfq_bench.quant.cached import HALF, TemporalCache
from tfq_bench.quant.state import (
    FORMAT,
    ActivationTable,
    AttentionTables,
    LayerPart,
    QuantizedLayer,
    QuantizedState,
)

__all__ = ["load_state", "save_state"]

TENSORS = "tensors.safetensors"
MANIFEST = "manifest.json"


def save_state(state: QuantizedState, folder: Path) -> None:
    """Writes `state` into `folder`; see `QuantizedState.save`."""
    tensors: dict[str, Tensor] = {}
    layers = [_describe(layer, tensors) for layer in state.layers.values()]
    caches = [_describe_cache(cache, tensors) for cache in state.cache.values()]
    attention = [_describe_attention(tables, tensors) for tables in state.attention.values()]
    data = save_tensors(tensors)
    content = {
        "format": FORMAT,
        "model": state.model,
        "method": state.method,
        "scheme": {
            "wbits": state.scheme.wbits,
            "abits": state.scheme.abits,
            "policy": state.scheme.policy,
        },
        "timesteps": list(state.timesteps),
        "layers": layers,
        "exempt": [list(pair) for pair in state.exempt.items()],
        "half": list(state.half),
        "cache": caches,
        "attention": attention,
        "tensors": {
            "file": TENSORS,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        },
    }
    document = {"content": content, "sha256": _digest(content)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TENSORS).write_bytes(data)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the quantized state cannot be written to {folder}: {error}.") from error


def load_state(folder: Path) -> QuantizedState:
    """The state in `folder`; see `QuantizedState.load`."""
    content = _read_manifest(folder / MANIFEST)
    path = folder / TENSORS
    data = _read(path)
    try:
        expected = content["tensors"]["sha256"]
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise StoreError(
                f"{path}: expected {content['tensors']['bytes']} bytes with sha256 {expected}, "
                f"found {len(data)} bytes with sha256 {found}; delete the artefact's folder and "
                "run again."
            )
        tensors = load_tensors(data)
        layers = [_restore(entry, tensors) for entry in content["layers"]]
        caches = [_restore_cache(entry, tensors) for entry in content["cache"]]
        attention = [_restore_attention(entry, tensors) for entry in content["attention"]]
        return QuantizedState(
            model=content["model"],
            method=content["method"],
            scheme=Scheme(**content["scheme"]),
            timesteps=tuple(content["timesteps"]),
            layers={layer.name: layer for layer in layers},
            exempt=dict(content["exempt"]),
            cache={cache.name: cache for cache in caches},
            half=tuple(content["half"]),
            attention={tables.name: tables for tables in attention},
        )
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError, TfqError) as error:
        # The digests hold, so whoever wrote the folder wrote something else than this format.
        raise StoreError(
            f"{folder}: expected a quantized state of format {FORMAT}, found {error!r}."
        ) from error


def _describe(layer: QuantizedLayer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The manifest's entry of a layer; its tensors are added to `tensors`."""

    def store(key: str, value: Tensor) -> None:
        tensors[f"{layer.name}/{key}"] = value.detach().to("cpu", copy=True).contiguous()

    parts = []
    for number, part in enumerate(layer.parts):
        store(f"{number}/weight", pack(part.weight, layer.wbits))
        store(f"{number}/scale", part.scale)
        store(f"{number}/zero_point", part.zero_point.to(torch.uint8))
        table = part.activation
        if table is not None:
            store(f"{number}/activation_scale", table.scale)
            store(f"{number}/activation_zero_point", table.zero_point.to(torch.uint8))
        parts.append(
            {
                "start": part.start,
                "stop": part.stop,
                "shape": list(part.weight.shape),
                "abits": None if table is None else table.bits,
            }
        )
    if layer.bias is not None:
        store("bias", layer.bias.float())
    return {
        "name": layer.name,
        "kind": layer.kind,
        "wbits": layer.wbits,
        "bias": layer.bias is not None,
        "parts": parts,
    }


def _restore(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> QuantizedLayer:
    name = entry["name"]
    parts = []
    for number, described in enumerate(entry["parts"]):
        prefix = f"{name}/{number}"
        table = None
        if described["abits"] is not None:
            table = ActivationTable(
                bits=described["abits"],
                scale=tensors[f"{prefix}/activation_scale"],
                zero_point=tensors[f"{prefix}/activation_zero_point"].to(torch.int32),
            )
        packed = tensors[f"{prefix}/weight"]
        parts.append(
            LayerPart(
                start=described["start"],
                stop=described["stop"],
                weight=unpack(packed, entry["wbits"], tuple(described["shape"])),
                scale=tensors[f"{prefix}/scale"],
                zero_point=tensors[f"{prefix}/zero_point"].to(torch.int32),
                activation=table,
            )
        )
    return QuantizedLayer(
        name=name,
        kind=entry["kind"],
        wbits=entry["wbits"],
        parts=tuple(parts),
        bias=tensors[f"{name}/bias"] if entry["bias"] else None,
    )


def _describe_cache(cache: TemporalCache, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The manifest's entry of a cache; the rows that are read are added to `tensors`."""
    prefix, selected = f"{cache.name}/cache", cache.selected.cpu()
    steps, channels = cache.values.shape
    values = cache.values.cpu()[selected]
    tensors[f"{prefix}/values"] = (
        values.contiguous() if cache.bits == HALF else pack(values, cache.bits)
    )
    tensors[f"{prefix}/selected"] = torch.from_numpy(np.packbits(selected.numpy()))
    shape = None
    if cache.scale is not None and cache.zero_point is not None:
        shape = list(cache.scale.shape)
        rows = selected if len(cache.scale) == steps else torch.ones(1, dtype=torch.bool)
        tensors[f"{prefix}/scale"] = cache.scale.cpu()[rows].contiguous()
        tensors[f"{prefix}/zero_point"] = cache.zero_point.cpu()[rows].to(torch.uint8)
    return {"name": cache.name, "bits": cache.bits, "shape": [steps, channels], "scale": shape}


def _restore_cache(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TemporalCache:
    prefix, bits, (steps, channels) = f"{entry['name']}/cache", entry["bits"], entry["shape"]
    mask = np.unpackbits(tensors[f"{prefix}/selected"].numpy(), count=steps)
    selected = torch.from_numpy(mask).bool()
    rows = int(selected.sum())
    stored = tensors[f"{prefix}/values"]
    if bits != HALF:
        stored = unpack(stored, bits, (rows, channels))
    values = torch.zeros((steps, channels), dtype=stored.dtype)
    values[selected] = stored
    scale = zero_point = None
    if entry["scale"] is not None:
        # Rows that are not selected need some positive scale; their codes are not read.
        scale = torch.ones(entry["scale"])
        zero_point = torch.zeros(entry["scale"], dtype=torch.int32)
        kept = selected if len(scale) == steps else torch.ones(1, dtype=torch.bool)
        scale[kept] = tensors[f"{prefix}/scale"]
        zero_point[kept] = tensors[f"{prefix}/zero_point"].to(torch.int32)
    return TemporalCache(
        name=entry["name"],
        bits=bits,
        values=values,
        scale=scale,
        zero_point=zero_point,
        selected=selected,
    )


def _describe_attention(tables: AttentionTables, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The manifest's entry of an attention; its tables are added to `tensors`."""
    for point, table in tables.by_point().items():
        prefix = f"{tables.name}/{point}"
        tensors[f"{prefix}_scale"] = table.scale.detach().to("cpu", copy=True)
        tensors[f"{prefix}_zero_point"] = table.zero_point.cpu().to(torch.uint8)
    bits = {point: table.bits for point, table in tables.by_point().items()}
    return {"name": tables.name, "bits": bits}


def _restore_attention(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AttentionTables:
    name = entry["name"]
    points = {
        point: ActivationTable(
            bits=bits,
            scale=tensors[f"{name}/{point}_scale"],
            zero_point=tensors[f"{name}/{point}_zero_point"].to(torch.int32),
        )
        for point, bits in entry["bits"].items()
    }
    return AttentionTables(name=name, **points)


def _read_manifest(path: Path) -> dict[str, Any]:
    raw = _read(path)
    try:
        document = json.loads(raw)
        content, expected = document["content"], document["sha256"]
        found, version = _digest(content), content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: expected a manifest with `content` and `sha256`, found {len(raw)} bytes "
            f"that are none ({error!r}); delete the artefact's folder and run again."
        ) from error
    if found != expected:
        raise StoreError(
            f"{path}: expected content with sha256 {expected}, found {found}; delete the "
            "artefact's folder and run again."
        )
    if version != FORMAT:
        raise StoreError(
            f"{path}: expected format {FORMAT}, found {version!r}; it was written by another "
            "version of tfq-bench: delete the artefact's folder and run again."
        )
    assert isinstance(content, dict)
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected a quantized state's file, found {error}.") from error


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
