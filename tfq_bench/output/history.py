"""What a history says: trends as a table, one series run by run, causes of changes, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfq_bench.foreign.text import printable
from tfq_bench.output.terminal import number, table
from tfq_bench.stats.compare import Delta
from tfq_bench.store.records import json_number
from tfq_bench.trends.causes import Change, Search, changes
from tfq_bench.trends.drift import Trend
from tfq_bench.trends.series import Point, Series

__all__ = [
    "OVERVIEW",
    "change_text",
    "change_to_json",
    "details",
    "overview_row",
    "search_text",
    "search_to_json",
    "to_json",
]

OVERVIEW = ("verdict", "suite", "cell", "metric", "runs", "first", "latest", "drift", "rule")
NOTHING_MOVED = (
    "nothing on record changed: what computes it is not deterministic, or not on record."
)
_RUNS = ("run", "added", "commit", "value", "low", "high", "N", "step", "cause", "environment")


def overview_row(series: Series, trend: Trend) -> tuple[str, ...]:
    """One row under `OVERVIEW`; `drift` is the difference that was judged, with its interval."""
    first, latest = series.points[0], series.points[-1]
    return (
        trend.outcome,
        series.suite,
        series.label,
        series.metric,
        str(len(series.points)),
        number(first.value, series.unit),
        number(latest.value, series.unit),
        _difference(trend.difference),
        trend.rule,
    )


def details(series: Series, trend: Trend) -> str:
    """A series run by run, what moved where it changed, where it ran, and the verdict."""
    found = (None, *changes(series.points))
    rows = [_run_row(p, series.unit, c) for p, c in zip(series.points, found, strict=True)]
    places = {p.measured.environment: p for p in series.points}
    notes = [change_text(c, series) for c in found if c is not None and c.evidence]
    if any(c is not None and c.cause == "undecided" and not c.evidence for c in found):
        notes.append(f"undecided: {NOTHING_MOVED}")
    notes += [f"environment {_short(name)}: {_place(p)}" for name, p in places.items()]
    head = (
        f"{series.suite}: {series.label}, {series.metric}, seed {series.seed}, definition "
        f"{series.definition}"
    )
    lines = [printable(line) for line in (*notes, _verdict(trend))]
    return "\n".join([printable(head), "", table(_RUNS, rows), "", *lines])


def _verdict(trend: Trend) -> str:
    """The verdict in a sentence."""
    return f"Verdict: {trend.outcome}: {trend.message}."


def change_text(change: Change, series: Series) -> str:
    """Between which runs, how far, which cause, on which evidence."""
    before, after = change.before, change.after
    values = f"{number(before.value)} -> {number(after.value, series.unit)}"
    where = f"Between {before.run.name} and {after.run.name}: {values}"
    if change.difference is not None:
        where += f", difference {_difference(change.difference)}"
    return f"{where}. Cause: {change.cause}. {_reason(change)}"


def search_text(search: Search, points: Sequence[Point], series: Series) -> str:
    """What was searched, and what was found, in short."""
    head = (
        f"{series.suite}: {series.label}, {series.metric}: {len(points)} runs, from "
        f"{points[0].run.name} to {points[-1].run.name}."
    )
    if not search.changes:
        return printable(f"{head} Cause: noise. No two differ by more than two equal runs may.")
    if search.creeping:
        (whole,) = search.changes
        return printable(
            f"{head} No single step is larger than noise. {change_text(whole, series)}"
        )
    largest = search.largest
    assert largest is not None
    text = printable(f"{head} {change_text(largest, series)}")
    others = [change for change in search.changes if change is not largest]
    if not others:
        return text
    rows = [
        (
            change.before.run.name,
            change.after.run.name,
            _difference(change.difference),
            change.cause,
            "; ".join(change.evidence) or "-",
        )
        for change in others
    ]
    listed = table(("from", "to", "difference", "cause", "what moved"), rows)
    return f"{text}\n\nOther changes larger than noise:\n\n{listed}"


def search_to_json(search: Search, points: Sequence[Point]) -> dict[str, Any]:
    """The same for scripts; `cause` is that of the change to look into first."""
    largest = search.largest
    return {
        "schema": 1,
        "runs": [point.run.number for point in points],
        "cause": "noise" if largest is None else largest.cause,
        "creeping": search.creeping,
        "changes": [change_to_json(change) for change in search.changes],
    }


def _reason(change: Change) -> str:
    found = "; ".join(change.evidence).rstrip(".")
    match change.cause:
        case "definition":
            return f"{found[:1].upper()}{found[1:]}."
        case "method":
            return f"Code, options or the suite changed, and nothing of the machine: {found}."
        case "environment":
            return f"The machine or its libraries changed, and no code: {found}."
        case "noise":
            return "Two equal runs may differ so far, or nobody knows yet how far they may."
    if found:
        return f"Method and environment changed at once: {found}. Repeat one of the two runs alone."
    return f"{NOTHING_MOVED[:1].upper()}{NOTHING_MOVED[1:]}"


def to_json(series: Series, trend: Trend) -> dict[str, Any]:
    """A series with its verdict, for scripts."""
    definition = series.points[-1].measured.metric.definition
    return {
        "suite": series.suite,
        "cell": series.label,
        "axes": dict(series.axes),
        "seed": series.seed,
        "metric": series.metric,
        "unit": series.unit,
        "direction": definition.direction,
        "definition": series.definition,
        "outcome": trend.outcome,
        "message": trend.message,
        "rule": trend.rule,
        "limit": trend.limit,
        "reference": None if trend.reference is None else trend.reference.run.number,
        **_delta_json(trend.difference),
        "points": [_point_json(point) for point in series.points],
        "changes": [change_to_json(c) for c in changes(series.points) if c.cause != "noise"],
    }


def change_to_json(change: Change) -> dict[str, Any]:
    """A change with its cause, for scripts."""
    return {
        "before": _point_json(change.before),
        "after": _point_json(change.after),
        "cause": change.cause,
        "evidence": list(change.evidence),
        **_delta_json(change.difference),
    }


def _run_row(point: Point, unit: str, change: Change | None) -> tuple[str, ...]:
    metric = point.measured.metric
    interval = metric.interval
    return (
        str(point.run.number),
        point.run.added[:10],
        point.run.commit_text,
        number(point.value, unit),
        number(interval.low if interval else None),
        number(interval.high if interval else None),
        str(metric.n),
        "-" if change is None else _difference(change.difference),
        "-" if change is None else change.cause,
        _short(point.measured.environment),
    )


def _difference(difference: Delta | None) -> str:
    if difference is None:
        return "-"
    value = number(difference.value, signed=True)
    if difference.interval is None:
        return value
    low, high = (number(end, signed=True) for end in (difference.low, difference.high))
    return f"{value} [{low}, {high}]"


def _short(name: str) -> str:
    return name[:6]


def _place(point: Point) -> str:
    """The machine and the libraries of a run, as far as they are on record."""
    environment = point.environment
    if not environment:
        return "not on record"
    hardware, versions = (
        part if isinstance(part := environment.get(name), Mapping) else {}
        for name in ("hardware", "versions")
    )
    gpus: Sequence[Mapping[str, Any]] = hardware.get("gpus") or ()
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{hardware.get('cpu', 'unknown processor')}, {hardware.get('usable_cores', '?')} cores, "
        f"{', '.join(str(gpu.get('name')) for gpu in gpus) or 'no GPU'}; "
        f"Python {environment.get('python', '?')}, {listed}"
    )


def _point_json(point: Point) -> dict[str, Any]:
    metric = point.measured.metric
    interval = metric.interval
    return {
        "run": point.run.number,
        "added": point.run.added,
        "commit": point.run.commit,
        "edited": point.run.edited,
        "plan": point.run.plan,
        "cell": point.key,
        "value": json_number(metric.value),
        "n": metric.n,
        "low": json_number(interval.low) if interval else None,
        "high": json_number(interval.high) if interval else None,
        "level": interval.level if interval else None,
        "definition": point.measured.definition,
        "environment": dict(point.environment),
        "plugins": list(point.plugins),
    }


def _delta_json(difference: Delta | None) -> dict[str, Any]:
    interval = difference.interval if difference else None
    return {
        "difference": json_number(difference.value) if difference else None,
        "low": json_number(interval.low) if interval else None,
        "high": json_number(interval.high) if interval else None,
        "paired": difference.paired if difference else None,
    }
