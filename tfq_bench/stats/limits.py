"""One number against one rule: the outcome, and expected and found in words.

A limit against the baseline is judged on the interval of the difference, so that noise alone fails
no build: `regressed` means that the whole interval lies past the limit. Absolute limits (`band`,
`at-most`, `at-least`) and `same` are judged on the value itself.
"""

from __future__ import annotations

import math

from tfq_bench.errors import NotComparable
from tfq_bench.stats.compare import Delta
from tfq_bench.stats.results import Measured
from tfq_bench.stats.rules import Rule
from tfq_bench.stats.verdicts import Outcome

__all__ = ["check_hardware", "held", "worst_allowed"]


def check_hardware(rule: Rule, mine: Measured, base: Measured) -> None:
    """NotComparable when the rule needs both numbers from like hardware, and they are not."""
    if not rule.same_hardware(mine.metric.definition):
        return
    if mine.hardware is None or mine.hardware != base.hardware:
        raise NotComparable(
            f"expected the baseline's hardware ({base.hardware or 'unknown'}), found "
            f"{mine.hardware or 'unknown'}"
        )


def held(
    rule: Rule, mine: Measured, base: Measured | None, difference: Delta | None
) -> tuple[Outcome, str]:
    """The outcome of a finite value under a rule, and expected and found in words."""
    value, unit = mine.metric.value, mine.metric.definition.unit
    if rule.kind in ("band", "at-most", "at-least"):
        low = rule.numbers[0] if rule.kind != "at-most" else -math.inf
        high = rule.numbers[-1] if rule.kind != "at-least" else math.inf
        outcome: Outcome = "pass" if low <= value <= high else "regressed"
        return outcome, f"expected a value {rule.text}{_space(unit)}, found {value:.6g}"
    assert base is not None
    assert difference is not None
    was = base.metric.value
    if rule.kind == "same":
        allowed = rule.numbers[1] + rule.numbers[0] * abs(was)
        outcome = "pass" if abs(difference.value) <= allowed else "regressed"
        return outcome, f"expected {was:.6g} ± {allowed:.3g}{_space(unit)}, found {value:.6g}"
    margin, higher = _margin(rule, was), mine.metric.definition.direction == "higher"
    sign = -1.0 if higher else 1.0
    ends = sorted((sign * difference.low, sign * difference.high))
    outcome = _side(ends[0], ends[1], margin)
    bound, word = worst_allowed(rule, base), "at least" if higher else "at most"
    return outcome, (
        f"expected {word} {bound:.6g}{_space(unit)} (baseline {was:.6g}, {rule.text}), found "
        f"{value:.6g}, difference {_signed(difference)}"
    )


def worst_allowed(rule: Rule, base: Measured) -> float:
    """The worst value that a `no-worse-than` limit allows, given the number it is held against."""
    was, margin = base.metric.value, _margin(rule, base.metric.value)
    return was - margin if base.metric.definition.direction == "higher" else was + margin


def _margin(rule: Rule, was: float) -> float:
    relative = rule.kind == "no-worse-ratio"
    return (rule.numbers[0] - 1) * abs(was) if relative else rule.numbers[0]


def _side(low: float, high: float, margin: float) -> Outcome:
    """Where the interval [low, high] of the harm lies: past the margin, below zero, on both."""
    if low > margin:
        return "regressed"
    if high < 0:
        return "improved"
    return "inconclusive" if high > margin else "pass"


def _signed(difference: Delta) -> str:
    if difference.interval is None:
        return f"{difference.value:+.4g} (exact)"
    kind = "paired" if difference.paired else "unpaired"
    return f"{difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}] ({kind})"


def _space(unit: str) -> str:
    return f" {unit}" if unit else ""
