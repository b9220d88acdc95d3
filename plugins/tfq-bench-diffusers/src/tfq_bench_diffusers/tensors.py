"""Whether weight files hold exactly the tensors of a network, from their headers alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from tfq_bench import api

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench_diffusers.weights import Weights

__all__ = ["check_floats", "check_tensors", "listed"]

Tensors = dict[str, "Tensor"]
"""Tensors on the meta device: shapes and dtypes, no values."""

_PLACES = "position_ids"
"""What old text encoders saved beside their weights: 0, 1, ..."""

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def check_tensors(network: nn.Module, weights: Weights, folder: Path) -> None:
    """Nothing, when the files hold the network's tensors and no others, as floating point.

    Args:
        network: of diffusers, on any device; the meta device is enough.

    Raises:
        AssetError: missing, unexpected or wrongly shaped tensors (the first of them are named),
            numbers that are not floating point, or files that are damaged.
    """
    found = _headers(weights, folder)
    fix: Any = getattr(network, "_fix_state_dict_keys_on_load", None)
    if fix is not None and weights.index is None:
        fix(found)  # names of attention layers before diffusers 0.12
    expected = network.state_dict()
    surplus = _surplus(network, found.keys() - expected.keys())
    missing = expected.keys() - found.keys()
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing: {listed(missing)}{_renamed(missing, surplus)}")
    if surplus:
        faults.append(f"{len(surplus)} unexpected: {listed(surplus)}")
    odd = {
        name: f"{tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    }
    if odd:
        told = "; ".join(f"'{name}' {odd[name]}" for name in sorted(odd)[:4])
        faults.append(f"{len(odd)} of another shape: {told}")
    if faults:
        raise api.AssetError(
            f"{folder}: expected the {len(expected)} tensors of a {type(network).__name__} in "
            f"{_described(weights)}, found {len(found)}: {'; '.join(faults)}. Fetch the folder "
            "again, or save it anew with the version that trained it."
        )


def check_floats(weights: Weights, folder: Path) -> None:
    """Nothing, when all numbers in a text encoder's files are floating point.

    transformers would take codes of 8 bits for the weights themselves.

    Raises:
        AssetError: they are not (the first tensors are named), or files are damaged.
    """
    _headers(weights, folder, but=_PLACES)


def listed(names: Iterable[str], shown: int = 4) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(f"'{api.printable(name, 120)}'" for name in ordered[:shown]) + more


def _headers(weights: Weights, folder: Path, but: str = "") -> Tensors:
    found: Tensors = {}
    for path in weights.files:
        tensors = _safetensors(path, but) if weights.safe else _pickled(path, but)
        twice = found.keys() & tensors.keys()
        if twice:
            raise api.AssetError(f"{folder}: {listed(twice)} are in more than one weight file.")
        if weights.index is not None:
            stated = {name for name, file in weights.names.items() if file == path.name}
            odd = {name for name in stated ^ tensors.keys() if not _left_out(name, but)}
            if odd:
                raise api.AssetError(
                    f"{path}: expected the tensors that {weights.index.name} says, but they "
                    f"differ in {listed(odd)}."
                )
        found.update(tensors)
    return found


def _left_out(name: str, but: str) -> bool:
    return bool(but) and name.endswith(but)


def _safetensors(path: Path, but: str) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            # An index of slices; no values are read.
            names = [name for name in file.keys() if not _left_out(name, but)]  # noqa: SIM118
            slices = {name: file.get_slice(name) for name in names}
            stated = {name: (one.get_shape(), one.get_dtype()) for name, one in slices.items()}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, "a safetensors file", error) from None
    odd = {f"{name} ({dtype})" for name, (_, dtype) in stated.items() if dtype not in FLOATS}
    _refuse_codes(path, odd)
    return {
        name: torch.empty(shape, dtype=FLOATS[dtype], device="meta")
        for name, (shape, dtype) in stated.items()
    }


def _pickled(path: Path, but: str) -> Tensors:
    try:
        found = torch.load(path, map_location="meta", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, "a file of tensors", error) from None
    except pickle.UnpicklingError as error:
        raise _damaged(path, "a file of tensors and nothing else", error) from None
    tensors = isinstance(found, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    )
    if not tensors:
        raise api.AssetError(
            f"{path}: expected a dictionary of tensors by name, found another thing. Where they "
            "lie deeper, save that dictionary alone."
        )
    odd = {
        f"{name} ({value.dtype})"
        for name, value in found.items()
        if value.dtype not in FLOATS.values() and not _left_out(name, but)
    }
    _refuse_codes(path, odd)
    return dict(found)


def _refuse_codes(path: Path, odd: set[str]) -> None:
    if odd:
        raise api.AssetError(
            f"{path}: expected weights of 16, 32 or 64 bits in floating point, found "
            f"{listed(odd)}: already quantized, or no weights. Take the model before quantization."
        )


def _surplus(network: nn.Module, names: Iterable[str]) -> set[str]:
    """Those that diffusers does not itself leave out in silence."""
    import re

    patterns = getattr(network, "_keys_to_ignore_on_load_unexpected", None) or ()
    return {name for name in names if not any(re.search(one, name) for one in patterns)}


def _renamed(missing: set[str], surplus: set[str]) -> str:
    """What must be done to the names, when a prefix explains what is missing."""
    name = min(missing)
    for other in sorted(surplus):
        prefix = other.removesuffix(name)
        if prefix != other and all(prefix + one in surplus for one in missing):
            return f" (they are there with the prefix '{api.printable(prefix, 80)}': remove it)"
        if prefix == other and name.endswith(f".{other}"):
            lacking = name.removesuffix(other)
            if all(one.removeprefix(lacking) in surplus for one in missing):
                return f" (they are there without the prefix '{lacking}': add it)"
    return ""


def _described(weights: Weights) -> str:
    first = weights.files[0].name
    return first if weights.index is None else f"{len(weights.files)} files"


def _damaged(path: Path, expected: str, error: Exception) -> api.AssetError:
    return api.AssetError(
        f"{path}: expected the weights in {expected}, found another or a damaged one "
        f"({api.printable(error, 200)}). Fetch it again."
    )
