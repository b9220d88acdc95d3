"""Line charts of a run: series over timesteps, coloured by method and dashed by scheme."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tfq_bench.api import MetricValue
from tfq_bench_reports import formatting
from tfq_bench_reports.charts.line_svg import COLOURS, DASHES, Curve, line_chart, logarithmic
from tfq_bench_reports.view.dedupe import merged
from tfq_bench_reports.view.model_groups import model_groups
from tfq_bench_reports.view.types import CellView, RunView

__all__ = ["CurveFigure", "CurveFigures", "curves"]

_AXIS = "timestep"
"""Name of the series that other series of the same metric are drawn over."""

_FIRST = ("temporal-error", "trajectory-divergence")
"""Metrics whose curves come before those of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFigure:
    """A line chart, and its values as a table: a header and one row per step."""

    title: str
    caption: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFigures:
    """The line charts of a run and their legend, which is the same for all of them.

    Args:
        methods: (name, number of its colour). schemes: (name, number of its dash pattern).
    """

    figures: tuple[CurveFigure, ...]
    methods: tuple[tuple[str, int], ...]
    schemes: tuple[tuple[str, int], ...]


def curves(run: RunView, prefix: str) -> CurveFigures | None:
    """One chart per series over timesteps that a metric carries, blocks aside, per model.

    Args:
        prefix: of the ids in the SVG, unique in the file.
    """
    drawn = [cell for cell in run.cells if any(True for _ in _series([cell]))]
    methods = list(dict.fromkeys(_method(cell) for cell in drawn))
    schemes = list(dict.fromkeys(_scheme(cell) for cell in drawn))
    figures: list[CurveFigure] = []
    groups = model_groups(run.cells)
    for group in groups:
        model = group.name if len(groups) > 1 else ""
        for _, metric, _, series in sorted(set(_series(group.cells))):
            shown = [
                Curve(
                    name=some.name,
                    x=some.lead.metrics[metric].series[_AXIS],
                    y=some.lead.metrics[metric].series[series],
                    colour=methods.index(_method(some.lead)),
                    dash=schemes.index(_scheme(some.lead)),
                )
                for some in merged(
                    [cell for cell in group.cells if _has(cell, metric, series)],
                    partial(_points, metric=metric, series=series),
                )
            ]
            if not shown:
                continue
            key = f"{prefix}curve{len(figures)}"
            figures.append(_figure(shown, group.cells, metric, series, key, model))
    if not figures:
        return None
    return CurveFigures(
        figures=tuple(figures),
        methods=tuple((name, number % COLOURS) for number, name in enumerate(methods)),
        schemes=tuple((name, number % DASHES) for number, name in enumerate(schemes)),
    )


def _method(cell: CellView) -> str:
    """The quantizer and what else sets its cells apart, but for the scheme."""
    name = cell.axes.get("quantizer", "?")
    policy = cell.axes.get("policy", "uniform")
    name += f" ({policy})" if policy != "uniform" else ""
    return name + (f" [{cell.axes['variant']}]" if cell.axes.get("variant") else "")


def _scheme(cell: CellView) -> str:
    return cell.axes.get("scheme", "?")


def _series(cells: Iterable[CellView]) -> Iterable[tuple[int, str, bool, str]]:
    """(rank, metric, whether another curve of it leads, series), to be sorted."""
    for cell in cells:
        for metric, value in cell.metrics.items():
            for series in value.series:
                if _AXIS in value.series and series != _AXIS and ":" not in series:
                    yield _rank(metric), metric, not _leads(value, series), series


def _rank(metric: str) -> int:
    return _FIRST.index(metric) if metric in _FIRST else len(_FIRST)


def _leads(value: MetricValue, series: str) -> bool:
    """Whether the metric's value is the mean or the end of this curve; it is then drawn first."""
    curve = value.series[series]
    leading = (sum(curve) / len(curve), curve[-1]) if curve else ()
    return any(math.isclose(number, value.value, rel_tol=1e-6) for number in leading)


def _has(cell: CellView, metric: str, series: str) -> bool:
    value = cell.metrics.get(metric)
    return value is not None and len(value.series.get(series, ())) == len(
        value.series.get(_AXIS, (0,))
    )


def _points(cell: CellView, *, metric: str, series: str) -> Hashable:
    """The curve as text, because a NaN is not equal to itself."""
    return repr([cell.metrics[metric].series[name] for name in (_AXIS, series)])


def _figure(
    shown: Sequence[Curve],
    cells: Sequence[CellView],
    metric: str,
    series: str,
    key: str,
    model: str,
) -> CurveFigure:
    words = series.replace("_", " ")
    title = f"{words.capitalize()} per timestep{f' of {model}' if model else ''}"
    steps = sorted({x for curve in shown for x in curve.x}, reverse=True)
    zero = any(y == 0 for curve in shown for y in curve.y) and logarithmic(shown)
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
