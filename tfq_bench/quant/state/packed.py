"""A quantized state's parts as packed tensors and JSON-able entries, and back.

Codes are packed at their true width, zero points are uint8, scales float32. Each part's tensors
are named after it, with a slash behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tfq_bench.quant.state.packing import pack, unpack
from tfq_bench.quant.state.qparams import ActivationQParams, AttentionQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer
from tfq_bench.quant.state.sampler_correction import SamplerCorrection
from tfq_bench.quant.state.temporal_cache import HALF, TemporalCache

__all__ = [
    "describe_attention",
    "describe_cache",
    "describe_correction",
    "describe_layer",
    "restore_attention",
    "restore_cache",
    "restore_correction",
    "restore_layer",
]


_CORRECTION = ("slope", "bias", "variance")


def describe_layer(layer: QuantizedLayer, tensors: dict[str, Tensor]) -> dict[str, Any]:
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


def restore_layer(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> QuantizedLayer:
    """The layer that `describe_layer` gave `entry` and `tensors` for."""
    name = entry["name"]
    parts = []
    for number, described in enumerate(entry["parts"]):
        prefix = f"{name}/{number}"
        table = None
        if described["abits"] is not None:
            table = ActivationQParams(
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


def describe_cache(cache: TemporalCache, tensors: dict[str, Tensor]) -> dict[str, Any]:
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


def restore_cache(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TemporalCache:
    """The cache that `describe_cache` gave `entry` and `tensors` for."""
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


def describe_attention(tables: AttentionQParams, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The manifest's entry of an attention; its tables are added to `tensors`."""
    for point, table in tables.by_point().items():
        prefix = f"{tables.name}/{point}"
        tensors[f"{prefix}_scale"] = table.scale.detach().to("cpu", copy=True)
        tensors[f"{prefix}_zero_point"] = table.zero_point.cpu().to(torch.uint8)
    bits = {point: table.bits for point, table in tables.by_point().items()}
    return {"name": tables.name, "bits": bits}


def restore_attention(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AttentionQParams:
    """The tables that `describe_attention` gave `entry` and `tensors` for."""
    name = entry["name"]
    points = {
        point: ActivationQParams(
            bits=bits,
            scale=tensors[f"{name}/{point}_scale"],
            zero_point=tensors[f"{name}/{point}_zero_point"].to(torch.int32),
        )
        for point, bits in entry["bits"].items()
    }
    return AttentionQParams(name=name, **points)


def describe_correction(
    correction: SamplerCorrection | None, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """What a correction adds to the manifest; nothing without one. Its tensors go to `tensors`."""
    if correction is None:
        return {}
    for name in _CORRECTION:
        value: Tensor = getattr(correction, name)
        tensors[f"correction/{name}"] = value.detach().to("cpu", copy=True).contiguous()
    return {"correction": list(_CORRECTION)}


def restore_correction(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> SamplerCorrection | None:
    """The correction that `describe_correction` wrote into the manifest `content`."""
    if "correction" not in content:
        return None
    return SamplerCorrection(
        **{name: tensors[f"correction/{name}"] for name in content["correction"]}
    )
