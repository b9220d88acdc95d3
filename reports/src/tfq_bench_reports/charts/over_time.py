"""A number run after run as inline SVG: values with their intervals, and the limit of a drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfq_bench_reports.charts.scale import Scale, fitted, tick_labels
from tfq_bench_reports.charts.svg import Frame, axes, chart, px, text

__all__ = ["Mark", "over_time"]

TICKS = 8
"""Most numbers of runs that are written under the axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value of one run.

    Args:
        low, high: its interval; both the value where it has none.
        changed: the step to it is larger than noise; it is drawn as a diamond.
    """

    run: int
    value: float
    low: float
    high: float
    changed: bool = False


def over_time(
    marks: Sequence[Mark],
    *,
    key: str,
    title: str,
    description: str,
    y_label: str,
    reference: float | None = None,
    limit: float | None = None,
) -> str:
    """The chart; runs stand by their numbers, so that runs without the value leave a gap.

    Args:
        marks: at least one, by run.
        reference, limit: the values that the verdict holds the last one against.
    """
    frame = Frame(width=540, height=300, right=84)  # the names of lines stand at the right
    runs = [mark.run for mark in marks]
    x = Scale(
        low=runs[0] - 0.5,
        high=runs[-1] + 0.5,
        start=frame.x[0],
        stop=frame.x[1],
        log=False,
        ticks=tuple(float(run) for run in _some(runs)),
    )
    lines = [("limit", limit, "d1"), ("reference", reference, "d2")]
    ends = [end for mark in marks for end in (mark.low, mark.high, mark.value)]
    y = fitted([*ends, *(value for _, value, _ in lines if value is not None)], *frame.y)
    names = [f"{round(tick)}" for tick in x.ticks]
    body = [axes(frame, x, y, names, tick_labels(y), "run", y_label)]
    for name, value, dash in lines:
        if value is not None:
            at = px(y.at(value))
            left, right = frame.x
            body.append(
                f'<line x1="{px(left)}" x2="{px(right)}" y1="{at}" y2="{at}" '
                f'class="line s7 {dash}"/>'
            )
            body.append(text(right + 6, y.at(value) + 4, name, kind="label t7"))
    points = " ".join(f"{px(x.at(mark.run))},{px(y.at(mark.value))}" for mark in marks)
    body.append(f'<polyline points="{points}" class="line s0"/>')
    body += [_mark(mark, x, y) for mark in marks]
    return chart(frame, key, title, description, "".join(body))


def _mark(mark: Mark, x: Scale, y: Scale) -> str:
    across, up = x.at(mark.run), y.at(mark.value)
    whisker = (
        f'<line x1="{px(across)}" x2="{px(across)}" y1="{px(y.at(mark.low))}" '
        f'y2="{px(y.at(mark.high))}" class="interval"/>'
    )
    if mark.changed:
        corners = ((across, up - 7), (across + 7, up), (across, up + 7), (across - 7, up))
        shape = f'<polygon points="{" ".join(f"{px(a)},{px(b)}" for a, b in corners)}" '
    else:
        shape = f'<circle cx="{px(across)}" cy="{px(up)}" r="4" '
    return f'{whisker}{shape}class="mark lowered"/>'


def _some(runs: Sequence[int]) -> list[int]:
    """The runs whose numbers are written: all, or some at equal distance."""
    every = -(-len(runs) // TICKS)
    return list(runs[::every])
