"""What a gate says: a verdict for each number or cell, and what all of them amount to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfq_bench.stats.compare import Delta

__all__ = ["OUTCOMES", "GateResult", "Outcome", "Verdict"]

Outcome = Literal[
    "failed", "regressed", "missing", "not-comparable", "inconclusive", "new", "improved", "pass"
]
OUTCOMES: tuple[Outcome, ...] = (
    "failed",
    "regressed",
    "missing",
    "not-comparable",
    "inconclusive",
    "new",
    "improved",
    "pass",
)
"""Worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule says about one metric of one cell.

    Args:
        metric: None when it is about the cell as a whole.
        fails: True when the gate fails because of it.
        rule: the limit in words, empty when no limit was looked at.
        message: expected and found, with numbers, interval and definition ids.
        value, baseline: the two numbers, None where there is none.
    """

    outcome: Outcome
    label: str
    metric: str | None
    fails: bool
    rule: str
    message: str
    unit: str = ""
    value: float | None = None
    baseline: float | None = None
    delta: Delta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """All verdicts, worst first, and what they amount to.

    Args:
        notes: rules that covered nothing; with any, the gate does not pass.
        compared: how many numbers were held against a limit.
        remarks: what to know of the comparison; they decide nothing.
    """

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    compared: int
    remarks: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 a rule covers nothing, 4 not comparable, 5 nothing compared."""
        if any(verdict.fails for verdict in self.verdicts):
            return 1
        if self.notes:
            return 2
        if any(verdict.outcome == "not-comparable" for verdict in self.verdicts):
            return 4
        return 0 if self.compared else 5

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        counts = {
            outcome: sum(verdict.outcome == outcome for verdict in self.verdicts)
            for outcome in OUTCOMES
        }
        listing = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n) or "no verdict"
        words = {
            0: "Gate passed",
            1: "Gate failed",
            2: "Gate undecided: a rule covers nothing",
            4: "Gate undecided: some numbers are not comparable",
            5: "Gate undecided: nothing was compared",
        }
        return f"{words[self.exit_code]} ({listing})."
