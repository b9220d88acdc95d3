"""Tiles that a search found on this machine, by shape: where they are kept, and how they are read.

`tfq-bench-cuda tune` writes them. Tiles change times and no digit: sums are exact in any order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tfq_bench.api import LoweringError, harmless
from tfq_bench_cuda.kernels.specs import Tile

__all__ = ["VARIABLE", "Shape", "found_by_search", "keep", "tiles_file"]

VARIABLE = "TFQ_BENCH_CUDA_TILES"
"""Names a file of tiles, instead of the one in the user's cache."""

Shape = tuple[int, int, int, int, int]
"""Rows, outputs, input channels of a tap, taps, sums an output."""


def tiles_file() -> Path:
    """Where tiles are kept; it need not exist."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tfq-bench" / "cuda-tiles.json"


def found_by_search(arch: str, shape: Shape) -> Tile | None:
    """The tile that is kept for a product on this machine's GPU, None when there is none.

    Raises:
        LoweringError: the file cannot be read, or the tile does not divide the product.
    """
    path = tiles_file()
    tile = _read(path).get(_key(arch, shape))
    if tile is not None and shape[2] % tile.k:
        raise _damaged(path, f"steps of {tile.k} for {shape[2]} input channels")
    return tile


def keep(arch: str, tiles: Mapping[Shape, Tile]) -> Path:
    """Adds tiles to the file, which is written anew as a whole; returns its path.

    Raises:
        LoweringError: the file that is there cannot be read.
        OSError: it cannot be written.
    """
    path = tiles_file()
    _read.cache_clear()  # another process may have written
    held = _read(path) | {_key(arch, shape): tile for shape, tile in tiles.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({key: asdict(tile) for key, tile in sorted(held.items())}, indent=1)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(path)
    _read.cache_clear()
    return path


def _key(arch: str, shape: Shape) -> str:
    rows, outputs, inputs, taps, sums = shape
    words = f"{arch} {rows}x{outputs}x{inputs} taps {taps} sums {sums}"
    return f"{_card()}: {words}"


@cache
def _card() -> str:
    """The name of this process's GPU; cards of one architecture differ in their multiprocessors."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


@cache
def _read(path: Path) -> dict[str, Tile]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _tile(value) for key, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, harmless(str(error))) from error


def _damaged(path: Path, found: str) -> LoweringError:
    return LoweringError(
        f"'{path}': expected tiles as `tfq-bench-cuda tune` writes them, found {found}. Delete the "
        "file, and search anew.",
        file=path,
        found=found,
    )


def _tile(value: Any) -> Tile:
    """Of a file that may be older than the fields that have a default."""
    defaults = {field.name: field.default for field in fields(Tile)}
    needed = {name for name, default in defaults.items() if default is MISSING}
    if not needed <= set(value) <= set(defaults):
        raise ValueError(f"a tile with {sorted(value)} instead of {sorted(defaults)}")
    for name, number in value.items():
        kind = bool if isinstance(defaults[name], bool) else int
        if type(number) is not kind or (kind is int and number < 1):
            raise ValueError(f"{name} = {number!r}")
    return Tile(**value)
