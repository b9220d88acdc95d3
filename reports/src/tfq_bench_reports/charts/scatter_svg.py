"""Scatter charts as inline SVG: the same input gives the same bytes.

Colour is never the only sign: shapes say how a cell was executed, and every point carries its name
or a number that leads to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfq_bench_reports.charts.label_layout import Box, placed
from tfq_bench_reports.charts.scale import fitted, tick_labels
from tfq_bench_reports.charts.svg import Frame, axes, chart, leader, mark, px, text

__all__ = ["Dot", "Scatter", "scatter_chart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One mark in a scatter chart; intervals are (low, high) or None.

    Args:
        execution: of its cells, or `both` when simulated and lowered ones lie there.
    """

    name: str
    execution: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """A scatter chart; where names do not fit, its marks are numbered: `numbered[0]` is 1."""

    svg: str
    numbered: tuple[str, ...] = ()


def scatter_chart(
    dots: Sequence[Dot], *, key: str, title: str, description: str, x_label: str, y_label: str
) -> Scatter:
    """Points with bars for their intervals and a label beside each, which covers no other."""
    frame = Frame()
    x = fitted([v for dot in dots for v in (dot.x, *(dot.x_interval or ()))], *frame.x)
    y = fitted([v for dot in dots for v in (dot.y, *(dot.y_interval or ()))], *frame.y)
    bars: list[str] = []
    marks: list[str] = []
    taken: list[Box] = []
    for dot in dots:
        at_x, at_y = x.at(dot.x), y.at(dot.y)
        if dot.x_interval:
            low, high = (x.at(v) for v in dot.x_interval)
            bars.append(_bar(px(low), px(high), px(at_y), px(at_y)))
            taken.append((low, at_y - 2, high, at_y + 2))
        if dot.y_interval:
            low, high = (y.at(v) for v in dot.y_interval)
            bars.append(_bar(px(at_x), px(at_x), px(low), px(high)))
            taken.append((at_x - 2, high, at_x + 2, low))
        marks.append(mark(at_x, at_y, dot.execution))
    points = [(x.at(dot.x), y.at(dot.y)) for dot in dots]
    names = [(dot.name, *at) for dot, at in zip(dots, points, strict=True)]
    numbers = [(str(n), *at) for n, at in enumerate(points, start=1)]
    labels = placed(frame, names, taken, tight=True)
    numbered = labels is None
    labels = labels or placed(frame, numbers, taken, tight=True)
    labels = labels or placed(frame, numbers, taken, tight=False) or ()
    leaders = [
        leader(at, label.leader) for at, label in zip(points, labels, strict=True) if label.leader
    ]
    body = (
        axes(frame, x, y, tick_labels(x), tick_labels(y), x_label, y_label)
        + "".join((*bars, *leaders, *marks))
        + "".join(text(*label.at, label.text, anchor=label.anchor) for label in labels)
    )
    return Scatter(
        svg=chart(frame, key, title, description, body),
        numbered=tuple(dot.name for dot in dots) if numbered else (),
    )


def _bar(x1: str, x2: str, y1: str, y2: str) -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" class="interval"/>'
