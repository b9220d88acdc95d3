"""Scatter charts of a run: quality against latency and against bytes, one set per model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfq_bench.api import Interval, MetricValue
from tfq_bench_reports import formatting
from tfq_bench_reports.charts.scatter_svg import Dot, scatter_chart
from tfq_bench_reports.view.key_metrics import key_metrics
from tfq_bench_reports.view.model_groups import model_groups
from tfq_bench_reports.view.rows import rows_of
from tfq_bench_reports.view.tables import DIRECTIONS
from tfq_bench_reports.view.types import CellView, Row, RunView

__all__ = ["Figure", "scatters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart and its caption.

    Args:
        numbered: what the numbers in the chart stand for, from 1; empty when it shows names.
    """

    title: str
    caption: str
    svg: str
    numbered: tuple[str, ...]


def scatters(run: RunView, prefix: str) -> tuple[Figure, ...]:
    """Leading quality metrics against latency and against bytes, per model.

    Args:
        prefix: of the ids in the SVG, unique in the file.
    """
    figures: list[Figure] = []
    groups = model_groups(run.cells)
    for group in groups:
        model = group.name if len(groups) > 1 else ""
        names = key_metrics(group.cells)
        for cost in (names.latency, names.size):
            for quality in (names.quality, names.paired):
                if cost is not None and quality is not None:
                    key = f"{prefix}scatter{len(figures)}"
                    figures += _scatter(group.cells, quality, cost, key, model)
    return tuple(figures)


def _scatter(
    cells: Sequence[CellView], quality: str, cost: str, key: str, model: str
) -> Iterable[Figure]:
    shown = [
        cell
        for cell in cells
        if all(
            name in cell.metrics and math.isfinite(cell.metrics[name].value)
            for name in (quality, cost)
        )
    ]
    rows = rows_of("scatter", [quality, cost], shown, {}, first=False)
    if len(rows) < 2:
        return
    dots = [_dot(row, cost, quality) for row in rows]
    x, y = shown[0].metrics[cost].definition, shown[0].metrics[quality].definition
    title = f"{quality} against {cost}{f' of {model}' if model else ''}"
    several = any(len(_by_seed(row, quality)) > 1 for row in rows)
    caption = f"Bars are {_level(shown[0].metrics[quality].interval)} intervals."
    if several:
        caption += " A cell of several seeds stands at their mean; its bars reach from the lowest "
        caption += "to the highest."
    drawn = scatter_chart(
        dots,
        key=key,
        title=title,
        description="; ".join(
            f"{dot.name}: {formatting.number(dot.y)} at {formatting.number(dot.x)}" for dot in dots
        ),
        x_label=f"{_axis(cost, x.unit)} ({DIRECTIONS[x.direction]})",
        y_label=f"{_axis(quality, y.unit)} ({DIRECTIONS[y.direction]})",
    )
    yield Figure(title=title, caption=caption, svg=drawn.svg, numbered=drawn.numbered)


def _dot(row: Row, x: str, y: str) -> Dot:
    at_x, x_ends = _place(row, x)
    at_y, y_ends = _place(row, y)
    return Dot(
        name=row.name,
        execution="both" if len(row.badges) > 1 else row.badges[0],
        x=at_x,
        y=at_y,
        x_interval=x_ends,
        y_interval=y_ends,
    )


def _place(row: Row, name: str) -> tuple[float, tuple[float, float] | None]:
    """The value of a row as printed on an axis, and the ends of its bar."""
    values = _by_seed(row, name)
    factor, _ = formatting.scaled(values[0].definition.unit)
    if len(values) == 1:
        interval = values[0].interval
        ends = None if interval is None else (interval.low * factor, interval.high * factor)
        return values[0].value * factor, ends
    numbers = [value.value * factor for value in values]
    mean = sum(numbers) / len(numbers)
    return mean, (min(numbers), max(numbers)) if min(numbers) < max(numbers) else None


def _by_seed(row: Row, name: str) -> list[MetricValue]:
    """The row's number for each of its seeds; cells of one seed in one row have equal numbers."""
    found = {
        cell.axes.get("seed"): cell.metrics[name] for cell in row.cells if name in cell.metrics
    }
    return list(found.values())


def _axis(name: str, unit: str) -> str:
    unit = formatting.scaled(unit)[1]
    return f"{name}, {unit}" if unit else name


def _level(interval: Interval | None) -> str:
    return "95%" if interval is None else f"{interval.level:.0%}"
