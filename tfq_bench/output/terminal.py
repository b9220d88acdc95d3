"""Plain aligned tables and short numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tfq_bench.foreign.text import printable

__all__ = ["number", "table"]

WIDEST = 500
"""Characters of one table cell; names of plugins and files may be of any length."""

_NUMERIC = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?( ?\S{1,6})?|NaN|[+-]?inf|-?")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table, one line per row, without a newline at the end.

    Columns of numbers (with units) are aligned to the right. Line breaks in a
    cell become spaces and control characters their escapes, so that every row stays one line.
    """
    cells = [[_one_line(cell) for cell in row] for row in (headers, *rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [len(cells) > 1 and all(map(_NUMERIC.fullmatch, column[1:])) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def number(value: float | None, unit: str = "", *, signed: bool = False) -> str:
    """Four significant digits, all digits of large numbers, and the unit; `-` for None."""
    if value is None:
        return "-"
    sign = "+" if signed else ""
    if math.isnan(value):
        text = "NaN"
    elif math.isfinite(value) and abs(value) >= 10_000:
        text = f"{value:{sign},.0f}"
    else:
        text = f"{value:{sign}.4g}"
    return f"{text} {unit}" if unit else text


def _one_line(text: str) -> str:
    return printable(text, WIDEST)
