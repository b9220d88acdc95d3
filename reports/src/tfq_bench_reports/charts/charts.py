"""Scatter and line charts as inline SVG: the same input gives the same bytes.

Colour is never the only sign: shapes say how a cell was executed, dashes say a line's scheme, and
every point and line carries its name or a number that leads to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfq_bench_reports import formatting
from tfq_bench_reports.charts.label_layout import Box, placed
from tfq_bench_reports.charts.scale import Scale, fitted
from tfq_bench_reports.charts.svg import CHARACTER, Frame, axes, chart, mark, px, text

__all__ = [
    "COLOURS",
    "DASHES",
    "Curve",
    "Dot",
    "Scatter",
    "line_chart",
    "logarithmic",
    "scatter_chart",
]

COLOURS = 8
"""Number of line colours in the style sheet; more methods start over."""
DASHES = 6
"""Number of dash patterns in the style sheet; more schemes start over."""

_LINE = 15.0
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line: values `y` at `x`, both of the same length.

    Args:
        colour, dash: numbers of its colour and its dash pattern.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: int = 0
    dash: int = 0


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
        _leader(at, label.leader) for at, label in zip(points, labels, strict=True) if label.leader
    ]
    body = (
        axes(frame, x, y, _labels(x), _labels(y), x_label, y_label)
        + "".join((*bars, *leaders, *marks))
        + "".join(text(*label.at, label.text, anchor=label.anchor) for label in labels)
    )
    return Scatter(
        svg=chart(frame, key, title, description, body),
        numbered=tuple(dot.name for dot in dots) if numbered else (),
    )


def line_chart(
    curves: Sequence[Curve],
    *,
    key: str,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    reverse: bool,
) -> str:
    """Lines with their names at the right; logarithmic when values span a wide range.

    Args:
        reverse: the largest x stands at the left, as a sampler visits timesteps.
    """
    longest = max(len(curve.name) for curve in curves)
    frame = Frame(
        width=860,
        height=max(380.0, 100 + _LINE * len(curves)),  # every line has its label
        right=28 + longest * CHARACTER,
    )
    left, right = frame.x
    x = fitted([v for c in curves for v in c.x], left, right)
    if reverse:
        x = Scale(low=x.low, high=x.high, start=right, stop=left, log=x.log, ticks=x.ticks)
    y = _vertical(curves, frame)
    ends = _spread([y.at(_last(curve)) for curve in curves], frame)
    body = [axes(frame, x, y, _labels(x), _labels(y), x_label, y_label)]
    for curve, end in zip(curves, ends, strict=True):
        colour = curve.colour % COLOURS
        style = f"line s{colour} d{curve.dash % DASHES}"
        points = [(x.at(a), y.at(b)) for a, b in zip(curve.x, curve.y, strict=True) if _shown(b, y)]
        if not points:
            continue
        path = " ".join(f"{px(a)},{px(b)}" for a, b in points)
        body.append(f'<polyline points="{path}" class="{style}"/>')
        last_x, last_y = points[-1]
        body.append(_leader((last_x, last_y), (right + 14, end)))
        body.append(text(right + 18, end + 4, curve.name, kind=f"label t{colour}"))
    return chart(frame, key, title, description, "".join(body))


def logarithmic(curves: Sequence[Curve]) -> bool:
    """Whether the vertical axis of a line chart of these curves is logarithmic."""
    return _vertical(curves, Frame()).log


def _vertical(curves: Sequence[Curve], frame: Frame) -> Scale:
    """Logarithmic where it may be; a zero among positive values then lies on the axis."""
    values = [v for curve in curves for v in curve.y if math.isfinite(v)]
    if min(values, default=0.0) == 0:
        scale = fitted([v for v in values if v > 0], *frame.y, log=True)
        if scale.log:
            return scale
    return fitted(values, *frame.y, log=True)


def _shown(value: float, y: Scale) -> bool:
    return math.isfinite(value) and (value >= 0 or not y.log)


def _last(curve: Curve) -> float:
    return next((value for value in reversed(curve.y) if math.isfinite(value)), 0.0)


def _bar(x1: str, x2: str, y1: str, y2: str) -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" class="interval"/>'


def _leader(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}" class="leader"/>'


def _labels(scale: Scale) -> list[str]:
    if scale.log and not 1e-3 <= scale.low <= scale.high < 1e5:
        exponents = [str(round(math.log10(value))) for value in scale.ticks]
        return [f"10{exponent.translate(_SUPERSCRIPT)}" for exponent in exponents]
    if scale.log:
        return [formatting.plain(f"{value:g}") for value in scale.ticks]
    step = scale.ticks[1] - scale.ticks[0] if len(scale.ticks) > 1 else 1.0
    if max(abs(scale.low), abs(scale.high)) >= 1e5 or step < 1e-4:
        return [formatting.plain(f"{value:.3g}") for value in scale.ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [formatting.plain(f"{value + 0.0:.{decimals}f}") for value in scale.ticks]


def _spread(positions: Sequence[float], frame: Frame) -> list[float]:
    """Positions of labels at least a line apart, in the same order, inside the chart."""
    bottom, top = frame.y
    order = sorted(range(len(positions)), key=lambda i: (positions[i], i))
    placed: dict[int, float] = {}
    at = top
    for index in order:
        at = max(at, positions[index])
        placed[index] = at
        at += _LINE
    over = at - _LINE - bottom
    ceiling = bottom
    if over > 0:
        for index in reversed(order):
            placed[index] = min(placed[index], ceiling)
            ceiling = placed[index] - _LINE
    return [placed[index] for index in range(len(positions))]
