"""Pipe tables that no content can break."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["escape", "table"]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub-flavoured Markdown table, ending with a newline."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(
        f"| {' | '.join(row if line == 1 else map(escape, row))} |\n"
        for line, row in enumerate(lines)
    )


def escape(text: str) -> str:
    """`text` as it is shown: pipes, angle brackets and emphasis marks lose their meaning."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "`", "*", "_"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.splitlines())
