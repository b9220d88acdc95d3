"""The renderer `history`: numbers over time as one self-contained file without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tfq_bench.store import write_atomically
from tfq_bench.trends import Series, Trend, changes
from tfq_bench_reports import formatting
from tfq_bench_reports.charts.over_time import Mark, over_time
from tfq_bench_reports.renderer import environment, static

__all__ = ["HistoryPage"]

WORDS = {
    "drift": ("drifted", "worse"),
    "improved": ("improved", "better"),
    "steady": ("steady", "same"),
    "inconclusive": ("steady within noise", "same"),
}
"""What a verdict is called, and the colour of the word; others are called as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One run of a series, as text."""

    run: int
    added: str
    commit: str
    value: str
    around: str
    n: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """One series: its chart, its verdict and its runs; `key` is its id in the page."""

    key: str
    title: str
    definition: str
    word: str
    colour: str
    message: str
    svg: str
    rows: tuple[_Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A cell of a suite with its series."""

    suite: str
    label: str
    seed: str
    figures: tuple[_Figure, ...]


class HistoryPage:
    """Draws every series of a history with its verdict; the same history gives the same bytes."""

    def render(self, series: Sequence[tuple[Series, Trend]], target: Path) -> None:
        """Writes `target`, whole or not at all; StoreError when it cannot be written."""
        numbered = [(one, _figure(one, trend, f"s{n}")) for n, (one, trend) in enumerate(series)]
        cells = tuple(
            _Cell(
                suite=suite,
                label=label,
                seed=found[0][0].seed,
                figures=tuple(figure for _, figure in found),
            )
            for (suite, label, _), group in groupby(
                numbered, key=lambda pair: (pair[0].suite, pair[0].label, dict(pair[0].axes))
            )
            if (found := list(group))
        )
        text = (
            environment()
            .get_template("history.html.j2")
            .render(
                cells=cells,
                runs=len({point.run.number for one, _ in series for point in one.points}),
                drifted=[
                    (one, trend, figure.key)
                    for (one, figure), (_, trend) in zip(numbered, series, strict=True)
                    if trend.outcome == "drift"
                ],
                total=len(series),
                judged=sum(trend.outcome in WORDS for _, trend in series),
                css=static("report.css"),
            )
        )
        write_atomically(target, text)


def _figure(series: Series, trend: Trend, key: str) -> _Figure:
    metric = series.points[-1].measured.metric
    factor, unit = formatting.scaled(series.unit)
    steps = (None, *changes(series.points))
    marks, rows = [], []
    for point, step in zip(series.points, steps, strict=True):
        number = point.measured.metric
        interval = number.interval
        low, high = (interval.low, interval.high) if interval else (number.value, number.value)
        spread = (high - low) / 2 * factor
        changed = step is not None and step.cause != "noise"
        marks.append(
            Mark(
                run=point.run.number,
                value=number.value * factor,
                low=low * factor,
                high=high * factor,
                changed=changed,
            )
        )
        rows.append(
            _Row(
                run=point.run.number,
                added=point.run.added[:10],
                commit=point.run.commit_text,
                value=formatting.number(number.value * factor, spread),
                around=formatting.around(number.value, interval, factor),
                n=number.n,
                cause="first" if step is None else _cause(step.cause, step.evidence),
            )
        )
    word, colour = WORDS.get(trend.outcome, (trend.outcome, "same"))
    title = f"{series.metric}{f', {unit}' if unit else ''}"
    better = {"lower": "lower is better", "higher": "higher is better", "none": ""}
    return _Figure(
        key=key,
        title=title,
        definition=series.definition,
        word=word,
        colour=colour,
        message=trend.message,
        svg=over_time(
            marks,
            key=key,
            title=f"{series.label}: {series.metric}",
            description=f"{len(marks)} runs, {word}: {trend.message}.",
            y_label=", ".join(filter(None, (unit, better[metric.definition.direction]))),
            reference=None if trend.reference is None else trend.reference.value * factor,
            limit=None if trend.limit is None else trend.limit * factor,
        ),
        rows=tuple(rows),
    )


def _cause(cause: str, evidence: Sequence[str]) -> str:
    return cause if not evidence else f"{cause}: {'; '.join(evidence)}"
