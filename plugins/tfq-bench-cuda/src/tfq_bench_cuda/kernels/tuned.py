"""Tiles that a search found on this machine, by shape: where they are kept, and how they are read.

`tfq-bench-cuda tune` writes them. Tiles change times and no digit: sums are exact in any order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

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
    """The tile that is kept for a product, None when there is none."""
    return _read(tiles_file()).get(_key(arch, shape))


def keep(arch: str, tiles: Mapping[Shape, Tile]) -> Path:
    """Adds tiles to the file, which is written anew as a whole; returns its path.

    Raises:
        LoweringError: the file that is there cannot be read.
    """
    path = tiles_file()
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
    return f"{arch} {rows}x{outputs}x{inputs} taps {taps} sums {sums}"


@cache
def _read(path: Path) -> dict[str, Tile]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _tile(value) for key, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LoweringError(
            f"{path}: expected tiles as `tfq-bench-cuda tune` writes them, found "
            f"{harmless(str(error))}; delete the file, and search anew."
        ) from error


def _tile(value: Any) -> Tile:
    names = {field.name for field in fields(Tile)}
    if set(value) != names:
        raise ValueError(f"a tile with {sorted(value)} instead of {sorted(names)}")
    for name, number in value.items():
        kind = bool if name == "whole_rows" else int
        if type(number) is not kind or number < 0:
            raise ValueError(f"{name} = {number!r}")
    return Tile(**value)
