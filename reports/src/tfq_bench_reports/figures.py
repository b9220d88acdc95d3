"""Which charts a run gets: quality against latency and bytes, and curves per timestep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfq_bench.border import Interval, MetricValue
from tfq_bench_reports import formatting
from tfq_bench_reports.charts import Curve, Dot, line_chart, scatter_chart
from tfq_bench_reports.headline import headline
from tfq_bench_reports.model import CellView, RunView
from tfq_bench_reports.tables import DIRECTIONS

__all__ = ["CurveFigure", "Figure", "curves", "scatters"]

_AXIS = "timestep"
"""Name of the series that other series of the same metric are drawn over."""

_FIRST = ("temporal-error", "trajectory-divergence")
"""Metrics whose curves come before those of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart and its caption."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFigure:
    """A line chart, and its values as a table: a header and one row per step."""

    title: str
    caption: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def scatters(run: RunView, prefix: str) -> tuple[Figure, ...]:
    """Leading quality metrics against latency and against bytes, per model.

    Args:
        prefix: of the ids in the SVG, unique in the file.
    """
    figures: list[Figure] = []
    for model, cells in _groups(run):
        names = headline(cells)
        for cost in (names.latency, names.size):
            for quality in (names.quality, names.paired):
                if cost is not None and quality is not None:
                    key = f"{prefix}scatter{len(figures)}"
                    figures += _scatter(cells, quality, cost, key, model)
    return tuple(figures)


def curves(run: RunView, prefix: str) -> tuple[CurveFigure, ...]:
    """One chart per series over timesteps that a metric carries, blocks aside, per model."""
    figures: list[CurveFigure] = []
    for model, cells in _groups(run):
        found = {
            (_rank(metric), metric, not _leads(value, series), series)
            for cell in cells
            for metric, value in cell.metrics.items()
            for series in value.series
            if _AXIS in value.series and series != _AXIS and ":" not in series
        }
        for _, metric, _, series in sorted(found):
            key = f"{prefix}curve{len(figures)}"
            figures.append(_curve(cells, metric, series, key, model))
    return tuple(figures)


def _rank(metric: str) -> int:
    return _FIRST.index(metric) if metric in _FIRST else len(_FIRST)


def _leads(value: MetricValue, series: str) -> bool:
    """Whether the metric's value is the mean or the end of this curve; it is then drawn first."""
    curve = value.series[series]
    leading = (sum(curve) / len(curve), curve[-1]) if curve else ()
    return any(math.isclose(number, value.value, rel_tol=1e-6) for number in leading)


def _groups(run: RunView) -> Iterable[tuple[str, list[CellView]]]:
    """(model name or nothing when there is one, its cells)."""
    groups = list(dict.fromkeys(cell.group for cell in run.cells))
    for group in groups:
        cells = [cell for cell in run.cells if cell.group == group]
        yield (cells[0].label.partition(" / ")[0] if len(groups) > 1 else "", cells)


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
    if len(shown) < 2:
        return
    dots = [_dot(cell, cell.metrics[cost], cell.metrics[quality]) for cell in shown]
    x, y = shown[0].metrics[cost].definition, shown[0].metrics[quality].definition
    of = f" of {model}" if model else ""
    title = f"{quality} against {cost}{of}"
    yield Figure(
        title=title,
        caption=f"Bars are {_level(shown[0].metrics[quality].interval)} intervals.",
        svg=scatter_chart(
            dots,
            key=key,
            title=title,
            description="; ".join(
                f"{dot.name}: {formatting.number(dot.y)} at {formatting.number(dot.x)}"
                for dot in dots
            ),
            x_label=f"{_axis(cost, x.unit)} ({DIRECTIONS[x.direction]})",
            y_label=f"{_axis(quality, y.unit)} ({DIRECTIONS[y.direction]})",
        ),
    )


def _dot(cell: CellView, x: MetricValue, y: MetricValue) -> Dot:
    x_factor, _ = formatting.scaled(x.definition.unit)
    y_factor, _ = formatting.scaled(y.definition.unit)
    return Dot(
        name=cell.name,
        execution=cell.execution,
        x=x.value * x_factor,
        y=y.value * y_factor,
        x_interval=_ends(x.interval, x_factor),
        y_interval=_ends(y.interval, y_factor),
    )


def _ends(interval: Interval | None, factor: float) -> tuple[float, float] | None:
    return None if interval is None else (interval.low * factor, interval.high * factor)


def _axis(name: str, unit: str) -> str:
    unit = formatting.scaled(unit)[1]
    return f"{name}, {unit}" if unit else name


def _level(interval: Interval | None) -> str:
    return "95%" if interval is None else f"{interval.level:.0%}"


def _curve(
    cells: Sequence[CellView], metric: str, series: str, key: str, model: str
) -> CurveFigure:
    shown = [
        Curve(name=cell.name, x=value.series[_AXIS], y=value.series[series])
        for cell in cells
        if (value := cell.metrics.get(metric)) is not None
        and len(value.series.get(series, ())) == len(value.series.get(_AXIS, (0,)))
    ]
    words = series.replace("_", " ")
    title = f"{words.capitalize()} per timestep{f' of {model}' if model else ''}"
    steps = sorted({x for curve in shown for x in curve.x}, reverse=True)
    zero = any(y == 0 for curve in shown for y in curve.y)
    tables = [dict(zip(curve.x, curve.y, strict=True)) for curve in shown]
    return CurveFigure(
        title=title,
        caption=f"Series {series} of {metric}: {_summary(cells, metric)} The sampler goes from "
        "left (noise) to right (image)."
        + (" On a logarithmic axis, exactly 0 is drawn at the bottom." if zero else ""),
        svg=line_chart(
            shown,
            key=key,
            title=title,
            description="; ".join(
                f"{c.name}: {formatting.number(min(c.y))} to {formatting.number(max(c.y))}"
                for c in shown
            ),
            x_label="timestep",
            y_label=words,
            reverse=True,
        ),
        header=("timestep", *(curve.name for curve in shown)),
        rows=tuple(
            (
                formatting.number(step),
                *(formatting.number(table[step]) if step in table else "" for table in tables),
            )
            for step in steps
        ),
    )


def _summary(cells: Sequence[CellView], metric: str) -> str:
    found = next(cell.metrics[metric] for cell in cells if metric in cell.metrics)
    return f"{found.definition.summary.rstrip('.')}."
