"""GitHub Actions: annotations and the job summary."""

from __future__ import annotations

from pathlib import Path

from tfq_bench.foreign.text import printable
from tfq_bench.output.verdicts import to_markdown
from tfq_bench.stats.verdicts import GateResult
from tfq_bench.store.disk import store_error

__all__ = ["LIMIT_BYTES", "MOST_ANNOTATIONS", "append_summary", "error_lines"]

LIMIT_BYTES = 900_000
"""GitHub drops a step's summary above 1 MiB altogether."""

MOST_ANNOTATIONS = 10
"""GitHub shows no more errors of one step."""


def error_lines(result: GateResult) -> tuple[str, ...]:
    """`::error` lines of the worst verdicts, at most `MOST_ANNOTATIONS`."""
    bad = [v for v in result.verdicts if v.fails or v.outcome == "not-comparable"]
    shown = bad if len(bad) <= MOST_ANNOTATIONS else bad[: MOST_ANNOTATIONS - 1]
    lines = [
        f"::error title={_property(v.metric or 'cell')} {v.outcome}::"
        f"{_data(f'{v.label}: {v.message}')}"
        for v in shown
    ]
    if len(shown) < len(bad):
        rest = f"{len(bad) - len(shown)} more verdicts are in the job summary"
        lines.append(f"::error title=gate::{_data(rest)}")
    return tuple(lines)


def append_summary(result: GateResult, path: Path) -> None:
    """Adds the result to the file that `$GITHUB_STEP_SUMMARY` names; at most `LIMIT_BYTES` in all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        before = path.stat().st_size if path.exists() else 0
        room = LIMIT_BYTES - before
        text = to_markdown(result, limit_bytes=room)
        if len(text.encode()) > room:
            return  # earlier steps of the job have used it up
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise store_error(error, path) from error


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
