"""Places for labels beside points: near their point, on no other label and on no mark.

Greedy, from the top: every label takes the cheapest place that is still free. Where names do not
all fit, the chart falls back to numbers, which fit almost always, and the names go to a list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfq_bench_reports.charts.svg import CHARACTER, Frame

__all__ = ["Box", "Label", "overlap", "placed"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in px."""

_HEIGHT = 15.0
_MARK = 9.0
_BAR = 40.0
"""What it costs, in px of distance, to stand on a bar: it can still be read there."""
_DETACHED = 16.0
"""Distance in px from which a line leads from the point to its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A placed label: its box, and the end of a leader line where it stands apart.

    Args:
        anchor: the side of the box that the text starts from, `start` or `end`: the one at the
            point, so that a font of another width leaves no gap and covers no mark.
    """

    text: str
    box: Box
    anchor: str
    leader: tuple[float, float] | None

    @property
    def at(self) -> tuple[float, float]:
        """Where the text is anchored, on its base line."""
        return self.box[0] if self.anchor == "start" else self.box[2], self.box[1] + 12


def placed(
    frame: Frame, labels: Sequence[tuple[str, float, float]], bars: Sequence[Box], *, tight: bool
) -> tuple[Label, ...] | None:
    """A place for each label in the order given; None when one has no free place.

    Args:
        labels: text and the point it belongs to.
        bars: boxes that are avoided where that costs no long way.
        tight: demand a free place; otherwise the least bad one is taken.
    """
    marks = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for _, x, y in labels]
    taken: list[Box] = []
    found: dict[int, Label] = {}
    order = sorted(range(len(labels)), key=lambda i: (labels[i][2], labels[i][1], i))
    for index in order:
        text, x, y = labels[index]
        best: tuple[float, Box] | None = None
        for box in _candidates(frame, text, x, y):
            blocked = sum(_common(box, other) for other in (*taken, *marks))
            if blocked and tight:
                continue
            cost = (
                _distance(box, x, y) + _BAR * sum(overlap(box, bar) for bar in bars) + 1e3 * blocked
            )
            if best is None or cost < best[0]:
                best = (cost, box)
        if best is None:
            return None
        box = best[1]
        taken.append(box)
        apart = _distance(box, x, y) > _DETACHED
        found[index] = Label(
            text=text,
            box=box,
            anchor="end" if box[2] < x else "start",
            leader=_nearest(box, x) if apart else None,
        )
    return tuple(found[index] for index in range(len(labels)))


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes have an area in common."""
    return _common(one, other) > 0


def _candidates(frame: Frame, text: str, x: float, y: float) -> Iterable[Box]:
    """Boxes around a point that lie inside the chart, right ones first."""
    width = len(text) * CHARACTER
    (left, right), (bottom, top) = frame.x, frame.y
    for distance in (11, 30, 50, 75, 100):
        for lift in (0, -14, 14, -28, 28, -42, 42, -56, 56, -70, 70):
            for start in (x + distance, x - distance - width):
                box = (start, y + lift - 8, start + width, y + lift - 8 + _HEIGHT)
                if (
                    box[0] >= left + 2
                    and box[2] <= right + 14
                    and box[1] >= top - 14
                    and box[3] <= bottom - 1
                ):
                    yield box
    for above in (y - 26, y + 11):
        if top - 14 <= above and above + _HEIGHT <= bottom - 1:
            start = min(max(x - width / 2, left + 2), right + 14 - width)
            yield (start, above, start + width, above + _HEIGHT)


def _nearest(box: Box, x: float) -> tuple[float, float]:
    """The point of a box's middle line that is nearest to a point at `x`."""
    return min(max(x, box[0] - 2), box[2] + 2), (box[1] + box[3]) / 2


def _distance(box: Box, x: float, y: float) -> float:
    near_x, near_y = _nearest(box, x)
    return math.hypot(near_x - x, near_y - y)


def _common(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
