"""Pieces of inline SVG: escaped text, axes, marks. Colours are CSS classes, never values here."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import escape

from tfq_bench_reports.charts.scale import Scale

__all__ = ["CHARACTER", "Frame", "axes", "chart", "leader", "mark", "px", "text"]

CHARACTER = 7.4
"""Mean width in px of a character of chart text (13 px) in a wide font, for placing labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Size of a chart in px, and the plot area in it."""

    width: float = 520
    height: float = 360
    left: float = 64
    right: float = 18
    top: float = 36
    bottom: float = 56

    @property
    def x(self) -> tuple[float, float]:
        """Left and right end of the plot area."""
        return self.left, self.width - self.right

    @property
    def y(self) -> tuple[float, float]:
        """Bottom and top of the plot area."""
        return self.height - self.bottom, self.top


def px(value: float) -> str:
    """A coordinate with one decimal, so that bytes do not depend on the last bits of a float."""
    return f"{value + 0.0:.1f}".removesuffix(".0")


def text(x: float, y: float, content: str, *, anchor: str = "start", kind: str = "label") -> str:
    """A text element; `content` is escaped."""
    return (
        f'<text x="{px(x)}" y="{px(y)}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(content)}</text>"
    )


def mark(x: float, y: float, execution: str) -> str:
    """A point whose shape says how the cell was executed.

    Diamond: full precision. Ring: simulated. Square: lowered. Ring and square: both. Triangle:
    external.
    """
    if execution == "full-precision":
        points = f"{px(x)},{px(y - 7)} {px(x + 7)},{px(y)} {px(x)},{px(y + 7)} {px(x - 7)},{px(y)}"
        return f'<polygon points="{points}" class="mark full-precision"/>'
    if execution == "external":
        points = f"{px(x)},{px(y - 7)} {px(x + 7)},{px(y + 5)} {px(x - 7)},{px(y + 5)}"
        return f'<polygon points="{points}" class="mark external"/>'
    ring = f'<circle cx="{px(x)}" cy="{px(y)}" r="8" class="mark simulated"/>'
    if execution == "simulated":
        return ring
    return (
        (ring if execution == "both" else "")
        + f'<rect x="{px(x - 5)}" y="{px(y - 5)}" width="10" height="10" rx="1" '
        'class="mark lowered"/>'
    )


def axes(
    frame: Frame,
    x: Scale,
    y: Scale,
    x_ticks: list[str],
    y_ticks: list[str],
    x_label: str,
    y_label: str,
) -> str:
    """Grid lines, tick labels and axis labels; that of the vertical axis stands above it."""
    (left, right), (bottom, top) = frame.x, frame.y
    parts = []
    for value, label in zip(y.ticks, y_ticks, strict=True):
        at = px(y.at(value))
        parts.append(f'<line x1="{px(left)}" x2="{px(right)}" y1="{at}" y2="{at}" class="grid"/>')
        parts.append(text(left - 8, y.at(value) + 4, label, anchor="end", kind="tick"))
    for value, label in zip(x.ticks, x_ticks, strict=True):
        at = px(x.at(value))
        parts.append(
            f'<line x1="{at}" x2="{at}" y1="{px(bottom)}" y2="{px(bottom + 5)}" class="axis"/>'
        )
        parts.append(text(x.at(value), bottom + 20, label, anchor="middle", kind="tick"))
    parts.append(
        f'<line x1="{px(left)}" x2="{px(right)}" y1="{px(bottom)}" y2="{px(bottom)}" class="axis"/>'
    )
    middle = (left + right) / 2
    parts.append(text(4, 14, y_label, kind="axis-label"))
    parts.append(text(middle, frame.height - 10, x_label, anchor="middle", kind="axis-label"))
    parts.append(
        f'<line x1="{px(left)}" x2="{px(left)}" y1="{px(top)}" y2="{px(bottom)}" class="axis"/>'
    )
    return "".join(parts)


def chart(frame: Frame, key: str, title: str, description: str, body: str) -> str:
    """A whole SVG image with a title and a description for those who do not see it."""
    return (
        f'<svg viewBox="0 0 {px(frame.width)} {px(frame.height)}" role="img" '
        f'aria-labelledby="{key}-t {key}-d" class="chart">'
        f'<title id="{key}-t">{escape(title)}</title>'
        f'<desc id="{key}-d">{escape(description)}</desc>{body}</svg>'
    )


def leader(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A thin line from a point to its label, both in px."""
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}" class="leader"/>'
