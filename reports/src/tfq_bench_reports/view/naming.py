"""Short names of cells: what all cells share is left out, names stay unique."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Name", "joined", "options_of", "short_names"]

_OPTIONS = ("model_options", "quantizer_options", "backend_options")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """The parts of a short name; a part that all cells of the run share is empty.

    Args:
        method: `rtn W4A8`, or `Full precision`. backend: empty for full precision.
        detail: options or key that make the name unique, empty where it is so without.
    """

    method: str
    model: str = ""
    backend: str = ""
    seed: str = ""
    detail: str = ""

    def __str__(self) -> str:
        parts = [self.model, self.method, self.backend, f"seed {self.seed}" if self.seed else ""]
        text = " · ".join(part for part in parts if part)
        return f"{text} ({self.detail})" if self.detail else text


def joined(names: Sequence[Name]) -> str:
    """One name for cells that differ in backend or seed only.

    `rtn W4A8 · simulate, cpu`, or `tfmq W4A8 · cpu · seeds 1, 2`.
    """
    first = names[0]
    seeds = _distinct(name.seed for name in names)
    details = _distinct(name.detail for name in names)
    alike = len(details) < 2
    backends = _distinct(
        name.backend if alike or not name.detail else f"{name.backend} ({name.detail})".strip()
        for name in names
    )
    seed = f"seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}" if seeds else ""
    parts = [first.model, first.method, ", ".join(backends), seed]
    text = " · ".join(part for part in parts if part)
    return f"{text} ({details[0]})" if alike and details else text


def _distinct(parts: Iterable[str]) -> list[str]:
    return [part for part in dict.fromkeys(parts) if part]


def short_names(cells: Sequence[Mapping[str, Any]]) -> dict[str, Name]:
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
            name = replace(name, detail=_distinction(cell, twins))
        names[cell["key"]] = name
    return names


def options_of(axes: Mapping[str, str], axis: str) -> dict[str, str]:
    """Options that an axis such as `model_options` holds as JSON text; none if it is not that."""
    try:
        options = json.loads(axes.get(axis) or "{}")
    except ValueError:
        return {}
    if not isinstance(options, dict):
        return {}
    return {str(name): "unset" if value is None else str(value) for name, value in options.items()}


def _base(cell: Mapping[str, Any], several: Mapping[str, bool]) -> Name:
    axes = cell["axes"]
    full = cell["execution"] == "full-precision"
    policy = axes.get("policy", "uniform")
    method = f"{axes.get('quantizer', '?')} {axes.get('scheme', '')}".strip()
    if policy != "uniform":
        method += f" ({policy})"
    if cell.get("variant"):
        method += f" [{cell['variant']}]"
    return Name(
        model=axes.get("model", "?") if several["model"] else "",
        method="Full precision" if full else method,
        backend="" if full else axes.get("backend", "?"),
        seed=axes.get("seed", "?") if several["seed"] else "",
    )


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
        found |= options_of(cell["axes"], axis)
    return found
