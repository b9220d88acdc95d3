"""Line charts as inline SVG: the same input gives the same bytes.

Colour is never the only sign: dashes say a line's scheme, and every line carries its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfq_bench_reports.charts.scale import Scale, fitted, tick_labels
from tfq_bench_reports.charts.svg import CHARACTER, Frame, axes, chart, leader, px, text

__all__ = ["COLOURS", "DASHES", "Curve", "line_chart", "logarithmic"]

COLOURS = 8
"""Number of line colours in the style sheet; more methods start over."""
DASHES = 6
"""Number of dash patterns in the style sheet; more schemes start over."""

_LINE = 15.0


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
    body = [axes(frame, x, y, tick_labels(x), tick_labels(y), x_label, y_label)]
    for curve, end in zip(curves, ends, strict=True):
        colour = curve.colour % COLOURS
        style = f"line s{colour} d{curve.dash % DASHES}"
        points = [(x.at(a), y.at(b)) for a, b in zip(curve.x, curve.y, strict=True) if _shown(b, y)]
        if not points:
            continue
        path = " ".join(f"{px(a)},{px(b)}" for a, b in points)
        body.append(f'<polyline points="{path}" class="{style}"/>')
        last_x, last_y = points[-1]
        body.append(leader((last_x, last_y), (right + 14, end)))
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
