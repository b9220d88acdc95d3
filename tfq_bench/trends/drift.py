"""A slow drift: the latest run against the first ones, though every step passed its gate.

The latest run of a series is held against the run with the median value of its first three, by the
rule that the gate has for the number: drift means that the whole interval of the difference lies
past the rule's limit.

A history is judged again with every run, and many series at once, so an interval of 95 % would
raise false alarms sooner or later. The share `FALSE_ALARMS` is therefore divided among all series
that are judged together, and in each among all its looks: look k (the first is at run `FEWEST`)
gets 1 / (k (k + 1)) of it, which sums to 1. By the union bound, a history in which nothing drifts
raises an alarm with at most that probability, however long it goes on; less, because the limit
leaves room for a change that does not matter. This holds as far as intervals and steps tell the
noise, see `steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tfq_bench.errors import NotComparable
from tfq_bench.stats.compare import Delta, delta
from tfq_bench.stats.limits import check_hardware, held, worst_allowed
from tfq_bench.stats.results import Measured
from tfq_bench.stats.rules import Rule
from tfq_bench.trends.series import Point, Series
from tfq_bench.trends.steps import FEWEST_STEPS, widened

__all__ = ["FALSE_ALARMS", "FEWEST", "Trend", "TrendOutcome", "trend"]

FALSE_ALARMS = 0.05
"""Probability that a history without drift ever raises an alarm."""

REFERENCE_RUNS = 3
FEWEST = FEWEST_STEPS + 1
"""From so many runs on a series is judged."""

TrendOutcome = Literal[
    "drift",
    "inconclusive",
    "steady",
    "improved",
    "too few runs",
    "not comparable",
    "not judged",
    "ended",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What is said of a series.

    Args:
        message: why, in words, with numbers.
        rule: the limit in words; empty when none covers the number.
        reference: the run that the latest is held against, None when none is.
        difference: latest - reference, with the interval that was judged.
        limit: the worst value that is no drift.
    """

    outcome: TrendOutcome
    message: str
    rule: str = ""
    reference: Point | None = None
    difference: Delta | None = None
    limit: float | None = None


def trend(series: Series, rules: Sequence[Rule], *, together: int) -> Trend:
    """Whether the series drifts past the last rule that covers it.

    Args:
        rules: see `tfq_bench.stats.rules`; those that hold a number against a baseline count.
        together: how many series are judged at once, from 1 on.
    """
    if series.ended:
        return Trend(outcome="ended", message="a later run has another definition of it")
    latest = series.points[-1].measured
    definition = latest.metric.definition
    rule = next((r for r in reversed(rules) if r.covers(series.label, definition)), None)
    if rule is None:
        return Trend(outcome="not judged", message="no rule covers it; times need one by name")
    if not rule.kind.startswith("no-worse"):
        message = f"the rule '{rule.text}' knows no worse and better than before"
        return Trend(outcome="not judged", message=message, rule=rule.text)
    points = [point for point in series.points if _compares(rule, latest, point.measured)]
    if len(points) < FEWEST:
        runs = "run" if len(points) == 1 else "runs"
        message = f"{len(points)} comparable {runs}; a series is judged from {FEWEST} on"
        return Trend(outcome="too few runs", message=message, rule=rule.text)
    reference = sorted(points[:REFERENCE_RUNS], key=lambda p: p.value)[REFERENCE_RUNS // 2]
    rule = rule.limit(definition, reference.measured.metric.definition)
    look = len(points) - FEWEST + 1
    tail = FALSE_ALARMS / together / (look * (look + 1))
    values = [point.value for point in points]
    difference = widened(
        delta(latest.metric, reference.measured.metric), values, tail, volatile=definition.volatile
    )
    if not difference.known:
        message = "the difference or its error is not finite"
        return Trend(outcome="not comparable", message=message, rule=rule.text)
    outcome, words = held(rule, latest, reference.measured, difference)
    of_gate: dict[str, TrendOutcome] = {
        "regressed": "drift",
        "improved": "improved",
        "inconclusive": "inconclusive",
    }
    return Trend(
        outcome=of_gate.get(outcome, "steady"),
        message=f"against {reference.run.name}: {words}",
        rule=rule.text,
        reference=reference,
        difference=difference,
        limit=worst_allowed(rule, reference.measured),
    )


def _compares(rule: Rule, latest: Measured, earlier: Measured) -> bool:
    try:
        check_hardware(rule, latest, earlier)
    except NotComparable:
        return False
    return True
