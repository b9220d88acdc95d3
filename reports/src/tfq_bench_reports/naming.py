"""Short names of cells: what all cells share is left out, names stay unique."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["short_names"]

_OPTIONS = ("model_options", "quantizer_options", "backend_options")


def short_names(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A short, unique name for each cell of `plan.json`, by cell key.

    `rtn W4A8 · cpu` in a run of one model and one seed; a full-precision cell is
    `Full precision`. Options stand in a name only where it would not be unique without them: those
    that the plan tells, else (cells of several runs) all that differ.
    """
    several = {
        axis: len({cell["axes"].get(axis, "") for cell in cells}) > 1 for axis in ("model", "seed")
    }
    base = {cell["key"]: _base(cell, several) for cell in cells}
    count = Counter(base.values())
    names = {}
    for cell in cells:
        name = base[cell["key"]]
        if count[name] > 1:
            twins = [other for other in cells if base[other["key"]] == name]
            name = f"{name} ({_distinction(cell, twins)})"
        names[cell["key"]] = name
    return names


def _base(cell: Mapping[str, Any], several: Mapping[str, bool]) -> str:
    axes = cell["axes"]
    full = cell["execution"] == "full-precision"
    policy = axes.get("policy", "uniform")
    method = f"{axes.get('quantizer', '?')} {axes.get('scheme', '')}".strip()
    if policy != "uniform":
        method += f" ({policy})"
    if cell.get("variant"):
        method += f" [{cell['variant']}]"
    parts = ["Full precision"] if full else [method, axes.get("backend", "?")]
    if several["model"]:
        parts.insert(0, axes.get("model", "?"))
    if several["seed"]:
        parts.append(f"seed {axes.get('seed', '?')}")
    return " · ".join(parts)


def _distinction(cell: Mapping[str, Any], twins: Sequence[Mapping[str, Any]]) -> str:
    """The options in which a cell differs from its twins, or the head of its key."""
    mine = _options(cell)
    others = [_options(twin) for twin in twins if twin["key"] != cell["key"]]
    words = [
        f"{name}={value}"
        for name, value in sorted(mine.items())
        if any(other.get(name) != value for other in others)
    ]
    if not words or any(other == mine for other in others):
        words.append(cell["key"][:6])
    return ", ".join(words)


def _options(cell: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for axis in _OPTIONS:
        try:
            options = json.loads(cell["axes"].get(axis) or "{}")
        except ValueError:
            continue
        if isinstance(options, dict):
            found |= {str(name): str(value) for name, value in options.items()}
    return found
