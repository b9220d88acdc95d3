"""Pipe tables that no content can break."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfq_bench.foreign.text import printable

__all__ = ["escape", "table"]


_HASH = re.compile(r"(?<!&)#")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub-flavoured Markdown table, ending with a newline."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(
        f"| {' | '.join(row if line == 1 else map(escape, row))} |\n"
        for line, row in enumerate(lines)
    )


def escape(text: str) -> str:
    """`text` as one line that is shown as it is: no mark-up, no link, no mention, no HTML."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\|`*_~[]!":
        text = text.replace(mark, f"\\{mark}")
    # GitHub finds addresses, mentions and issues without any mark; an entity is none of these.
    for start, entity in (("@", "&#64;"), ("://", "&#58;//"), ("www.", "www&#46;"), ("#", "&#35;")):
        text = text.replace(start, entity) if start != "#" else _HASH.sub(entity, text)
    return text
