"""Scatter and line charts as inline SVG: the same input gives the same bytes.

Colour is never the only sign: shapes say how a cell was executed, dashes tell lines apart, and
every point and line carries its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfq_bench_reports import formatting
from tfq_bench_reports.scale import Scale, fitted
from tfq_bench_reports.svg import CHARACTER, Frame, axes, chart, mark, px, text

__all__ = ["Curve", "Dot", "line_chart", "scatter_chart"]

STYLES = 8
"""Number of line styles (colour and dash) in the style sheet; more lines start over."""

_LINE = 15.0
_Box = tuple[float, float, float, float]
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One cell in a scatter chart; intervals are (low, high) or None."""

    name: str
    execution: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line: values `y` at `x`, both of the same length."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def scatter_chart(
    dots: Sequence[Dot], *, key: str, title: str, description: str, x_label: str, y_label: str
) -> str:
    """Points with bars for their intervals and a label beside each."""
    frame = Frame()
    x = fitted([v for dot in dots for v in (dot.x, *(dot.x_interval or ()))], *frame.x)
    y = fitted([v for dot in dots for v in (dot.y, *(dot.y_interval or ()))], *frame.y)
    bars, marks, taken = [], [], []
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
    body = (
        axes(frame, x, y, _labels(x), _labels(y), x_label, y_label)
        + "".join(bars)
        + "".join(marks)
        + _dot_labels(frame, [(dot.name, x.at(dot.x), y.at(dot.y)) for dot in dots], taken)
    )
    return chart(frame, key, title, description, body)


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
    for number, (curve, end) in enumerate(zip(curves, ends, strict=True)):
        style = f"line s{number % STYLES}"
        points = [(x.at(a), y.at(b)) for a, b in zip(curve.x, curve.y, strict=True) if _shown(b, y)]
        if not points:
            continue
        path = " ".join(f"{px(a)},{px(b)}" for a, b in points)
        body.append(f'<polyline points="{path}" class="{style}"/>')
        last_x, last_y = points[-1]
        body.append(
            f'<line x1="{px(last_x)}" y1="{px(last_y)}" x2="{px(right + 14)}" y2="{px(end)}" '
            'class="leader"/>'
        )
        body.append(text(right + 18, end + 4, curve.name, kind=f"label t{number % STYLES}"))
    return chart(frame, key, title, description, "".join(body))


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


def _dot_labels(
    frame: Frame, dots: Sequence[tuple[str, float, float]], bars: Sequence[_Box]
) -> str:
    """A label for each dot where it covers no label, mark or bar, if there is such a place."""
    taken = [*((x - 8, y - 8, x + 8, y + 8) for _, x, y in dots), *bars]
    (left, right), (bottom, top) = frame.x, frame.y
    parts = []
    for name, x, y in dots:
        width = len(name) * CHARACTER
        boxes = []
        for lift in (0, -14, 14, -28, 28, -42, 42, -56, 56, -70, 70):
            boxes.append((x + 11, y + lift - 8))
            boxes.append((x - 11 - width, y + lift - 8))
        boxes += [(x - width / 2, y - 26), (x - width / 2, y + 11)]
        candidates = [
            (a, b, a + width, b + 15)
            for a, b in boxes
            if a >= left + 2 and a + width <= right + 14 and b >= top - 14 and b + 15 <= bottom - 1
        ]
        free = [box for box in candidates if not any(_overlap(box, other) for other in taken)]
        box = (free or candidates or [(x + 11, y - 8, x + 11 + width, y + 7)])[0]
        taken.append(box)
        if abs(box[1] + 8 - y) > 12:  # too far to be read as belonging together
            near = box[0] - 2 if box[0] > x else box[2] + 2
            parts.append(
                f'<line x1="{px(x)}" y1="{px(y)}" x2="{px(near)}" y2="{px(box[1] + 8)}" '
                'class="leader"/>'
            )
        parts.append(text(box[0], box[1] + 12, name))
    return "".join(parts)


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
