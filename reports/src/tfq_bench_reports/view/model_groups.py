"""Cells by the model they quantize: numbers of different models are never ranked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tfq_bench_reports.view.naming import options_of
from tfq_bench_reports.view.types import CellView

__all__ = ["ModelGroup", "model_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGroup:
    """The cells of one model.

    Args:
        name: of the model, with the options that tell it from another group of that name.
        options: all its options in words, `weights = random`; empty when it has none.
        cells: named without the model, which is the same for all of them.
    """

    name: str
    options: str
    cells: tuple[CellView, ...]


def model_groups(cells: Iterable[CellView]) -> tuple[ModelGroup, ...]:
    """One group per model and its options, in plan order."""
    found: dict[str, list[CellView]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    names = [group[0].axes.get("model", "") for group in found.values()]
    options = [options_of(group[0].axes, "model_options") for group in found.values()]
    groups = []
    for name, mine, group in zip(names, options, found.values(), strict=True):
        alike = [other for n, other in zip(names, options, strict=True) if n == name]
        differing = [
            f"{key}={value}"
            for key, value in sorted(mine.items())
            if any(other.get(key) != value for other in alike)
        ]
        groups.append(
            ModelGroup(
                name=f"{name} ({', '.join(differing)})" if differing else name,
                options=", ".join(f"{key} = {value}" for key, value in sorted(mine.items())),
                cells=tuple(replace(cell, parts=replace(cell.parts, model="")) for cell in group),
            )
        )
    return tuple(groups)
