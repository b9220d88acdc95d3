"""Heat maps as inline SVG: one row per block, one column per sampler step.

Cells of one colour are one path, so that thousands of them stay small. The colours go from pale to
dark (in dark mode from dark to pale), so that they can be told apart without their hue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from tfq_bench_reports import formatting
from tfq_bench_reports.charts.svg import CHARACTER, Frame, chart, px, text

__all__ = ["EDGES", "heat_map", "level"]

EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Where one colour ends and the next begins; the same in every report, so that they compare."""
COLUMNS = 120
"""Most columns of a map; with more steps a column shows the largest value of several."""

_ROW = 15.0
_WIDTH = 560.0


def level(value: float) -> int | None:
    """Number of the colour, 0 (below the first edge) to `len(EDGES)`; None for no number."""
    if math.isnan(value):
        return None
    return sum(value >= edge for edge in EDGES)


def heat_map(
    rows: Sequence[tuple[str, Sequence[float]]],
    steps: Sequence[float],
    *,
    key: str,
    title: str,
    description: str,
) -> str:
    """A map of values that are not negative.

    Args:
        rows: name and one value per step, from the top.
        steps: timesteps, from the left.
    """
    longest = max(len(name) for name, _ in rows)
    frame = Frame(
        width=_WIDTH,
        height=8 + _ROW * len(rows) + 48,
        left=14 + longest * CHARACTER,
        right=14,
        top=8,
        bottom=48,
    )
    bins = _bins(len(steps))
    left, right = frame.x
    edges = [left + (right - left) * number / len(bins) for number in range(len(bins) + 1)]
    shapes: dict[int, list[str]] = {}
    labels = []
    for number, (name, values) in enumerate(rows):
        top = frame.top + number * _ROW
        labels.append(text(left - 8, top + _ROW - 3, name, anchor="end", kind="tick"))
        colours = [level(_largest(values[start:stop])) for start, stop in bins]
        column = 0
        for colour, run in groupby(colours):
            first, column = column, column + len(list(run))
            if colour is not None:
                across = f"h{px(edges[column] - edges[first])}"
                back = f"h-{px(edges[column] - edges[first])}"
                shapes.setdefault(colour, []).append(
                    f"M{px(edges[first])} {px(top)}{across}v{px(_ROW)}{back}z"
                )
    body = "".join(
        f'<path d="{"".join(parts)}" class="heat h{colour}"/>'
        for colour, parts in sorted(shapes.items())
    )
    return chart(frame, key, title, description, body + "".join(labels) + _axis(frame, steps))


def _axis(frame: Frame, steps: Sequence[float]) -> str:
    (left, right), bottom = frame.x, frame.height - frame.bottom
    shown = sorted({0, (len(steps) - 1) // 2, len(steps) - 1})
    parts = [
        f'<rect x="{px(left)}" y="{px(frame.top)}" width="{px(right - left)}" '
        f'height="{px(bottom - frame.top)}" class="heat-frame"/>'
    ]
    for step in shown:
        at = left + (right - left) * (step + 0.5) / len(steps)
        parts.append(
            f'<line x1="{px(at)}" x2="{px(at)}" y1="{px(bottom)}" y2="{px(bottom + 4)}" '
            'class="axis"/>'
        )
        label = formatting.number(steps[step])
        parts.append(text(at, bottom + 18, label, anchor="middle", kind="tick"))
    middle = (left + right) / 2
    parts.append(text(middle, frame.height - 10, "timestep", anchor="middle", kind="axis-label"))
    return "".join(parts)


def _bins(steps: int) -> list[tuple[int, int]]:
    """(start, stop) of the steps in each column."""
    size = math.ceil(steps / COLUMNS)
    return [(start, min(start + size, steps)) for start in range(0, steps, size)]


def _largest(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)
