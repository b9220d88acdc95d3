"""A gate's verdicts as rows of a table, as Markdown and as JSON."""

from __future__ import annotations

from typing import Any

from tfq_bench.foreign.text import printable
from tfq_bench.output import markdown, terminal
from tfq_bench.output.terminal import number
from tfq_bench.stats.verdicts import GateResult, Verdict
from tfq_bench.store.records import json_number

__all__ = ["HEADERS", "delta_text", "row", "to_json", "to_markdown", "to_text"]

HEADERS = ("verdict", "cell", "metric", "baseline", "run", "difference", "rule")


def row(verdict: Verdict) -> tuple[str, ...]:
    """One row under `HEADERS`."""
    return (
        verdict.outcome,
        verdict.label,
        verdict.metric or "-",
        number(verdict.baseline, verdict.unit),
        number(verdict.value, verdict.unit),
        delta_text(verdict),
        verdict.rule,
    )


def delta_text(verdict: Verdict) -> str:
    """The difference with its interval, `-` when there is none."""
    delta = verdict.delta
    if delta is None:
        return "-"
    value = number(delta.value, signed=True)
    if delta.interval is None:
        return value
    return f"{value} [{number(delta.low, signed=True)}, {number(delta.high, signed=True)}]"


def to_text(result: GateResult) -> str:
    """Table, the message of everything that decided against the run, notes, and the result."""
    rows = [row(verdict) for verdict in result.verdicts]
    parts = [terminal.table(HEADERS, rows)] if rows else []
    reasons = [
        printable(
            f"{verdict.outcome}: {verdict.label}, {verdict.metric or 'cell'}: {verdict.message}"
        )
        for verdict in result.verdicts
        if verdict.fails or verdict.outcome == "not-comparable"
    ]
    if reasons:
        parts.append("\n".join(reasons))
    if told := (*result.notes, *result.remarks):
        parts.append("\n".join(f"note: {printable(note)}" for note in told))
    return "\n\n".join([*parts, result.summary])


def to_markdown(result: GateResult, *, limit_bytes: int | None = None) -> str:
    """The result, the table (worst first) and the notes.

    Args:
        limit_bytes: rows that would not fit are left out, and their number is told.
    """
    text = f"### {markdown.escape(result.summary)}\n\n"
    told = (*result.notes, *result.remarks)
    for note in told:
        text += f"- {markdown.escape(note)}\n"
    if not result.verdicts:
        return text
    text += "\n" if told else ""
    lines = markdown.table(HEADERS, [row(v) for v in result.verdicts]).splitlines(keepends=True)
    size, kept = len(text.encode()), 0
    room = None if limit_bytes is None else limit_bytes - 200  # for the sentence about the rest
    for line in lines:
        size += len(line.encode())
        if room is not None and size > room:
            break
        kept += 1
    text += "".join(lines[:kept])
    if kept < len(lines):
        text += f"\n{len(lines) - kept} more rows do not fit here.\n"
    return text


def to_json(result: GateResult) -> dict[str, Any]:
    """Everything, for scripts."""
    return {
        "schema": 1,
        "exit_code": result.exit_code,
        "summary": result.summary,
        "compared": result.compared,
        "notes": list(result.notes),
        "remarks": list(result.remarks),
        "verdicts": [_verdict(verdict) for verdict in result.verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    delta = verdict.delta
    return {
        "outcome": verdict.outcome,
        "fails": verdict.fails,
        "cell": verdict.label,
        "metric": verdict.metric,
        "rule": verdict.rule,
        "message": verdict.message,
        "unit": verdict.unit,
        "value": None if verdict.value is None else json_number(verdict.value),
        "baseline": None if verdict.baseline is None else json_number(verdict.baseline),
        "difference": None if delta is None else json_number(delta.value),
        "low": None if delta is None else json_number(delta.low),
        "high": None if delta is None else json_number(delta.high),
        "paired": None if delta is None else delta.paired,
    }
