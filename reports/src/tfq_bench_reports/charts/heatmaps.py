"""Heat maps of a run: one per quantized cell of the metric with a curve for every block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from tfq_bench.api import MetricValue
from tfq_bench_reports import formatting
from tfq_bench_reports.charts.heatmap_svg import COLUMNS, EDGES, heat_map
from tfq_bench_reports.view.dedupe import merged
from tfq_bench_reports.view.types import RunView

__all__ = ["HeatFigure", "HeatMaps", "heat_maps"]

_AXIS = "timestep"
_BLOCK = "block:"
_PREFERRED = "temporal-error"
_OPEN = 8
"""Up to so many maps are shown without being asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatFigure:
    """A cell's map, and what it says as a table of (block, mean, largest, at timestep)."""

    title: str
    svg: str
    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMaps:
    """The maps of a run and the meaning of their colours, palest first.

    Args:
        shown: whether they are open from the start.
    """

    metric: str
    caption: str
    legend: tuple[str, ...]
    figures: tuple[HeatFigure, ...]
    shown: bool


def heat_maps(run: RunView, prefix: str) -> HeatMaps | None:
    """Maps of one metric for every cell that has it, one for cells of equal curves.

    None when no metric has curves of blocks.

    Args:
        prefix: of the ids in the SVG, unique in the file.
    """
    names = {name for cell in run.cells for name, value in cell.metrics.items() if _blocks(value)}
    if not names:
        return None
    metric = min(names, key=lambda name: (name != _PREFERRED, name))
    cells = [cell for cell in run.cells if metric in cell.metrics and _blocks(cell.metrics[metric])]
    maps = merged(cells, lambda cell: repr(sorted(cell.metrics[metric].series.items())))
    figures = [
        _figure(some.name, some.lead.metrics[metric], f"{prefix}heat{number}")
        for number, some in enumerate(maps)
    ]
    steps = max(len(cell.metrics[metric].series[_AXIS]) for cell in cells)
    width = math.ceil(steps / COLUMNS)
    caption = (
        f"{metric} of each block (rows, first executed on top) at each timestep (from noise to "
        "image)."
    )
    if width > 1:
        caption += f" A column is the largest of up to {width} timesteps."
    return HeatMaps(
        metric=metric,
        caption=caption,
        legend=_legend(),
        figures=tuple(figures),
        shown=len(figures) <= _OPEN,
    )


def _blocks(value: MetricValue) -> list[str]:
    """Names of the blocks with a curve over timesteps, in execution order where it is known."""
    length = len(value.series.get(_AXIS, ()))
    found = [
        name.removeprefix(_BLOCK)
        for name, curve in value.series.items()
        if name.startswith(_BLOCK) and len(curve) == length > 0
    ]
    order = value.definition.parameters.get("blocks")
    if isinstance(order, list | tuple):
        places = {str(name): place for place, name in enumerate(order)}
        found.sort(key=lambda name: places.get(name, len(places)))
    return found


def _figure(cell: str, value: MetricValue, key: str) -> HeatFigure:
    steps = value.series[_AXIS]
    rows = [(name, value.series[f"{_BLOCK}{name}"]) for name in _blocks(value)]
    table = []
    peaks: list[tuple[float, str]] = []
    for name, curve in rows:
        known = [(v, t) for v, t in zip(curve, steps, strict=True) if not math.isnan(v)]
        if not known:
            table.append((name, "NaN", "NaN", ""))
            continue
        largest, at = max(known, key=lambda pair: pair[0])
        mean = sum(v for v, _ in known) / len(known)
        table.append(
            (name, formatting.number(mean), formatting.number(largest), formatting.number(at))
        )
        peaks.append(
            (largest, f"{formatting.number(largest)} in {name} at timestep {table[-1][3]}")
        )
    peak = max(peaks, key=lambda pair: pair[0], default=(0.0, "no number"))[1]
    return HeatFigure(
        title=cell,
        svg=heat_map(
            rows,
            steps,
            key=key,
            title=f"{value.definition.name} of {cell}, per block and timestep",
            description=f"Mean {formatting.number(value.value)}; largest {peak}.",
        ),
        rows=tuple(table),
    )


def _legend() -> tuple[str, ...]:
    edges = [f"{edge:g}" for edge in EDGES]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return (f"below {edges[0]}", *between, f"{edges[-1]} and more")
