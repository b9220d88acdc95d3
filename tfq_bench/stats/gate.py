"""Verdicts: a run, a baseline and rules become pass or fail, with the numbers that decided.

Here is which rule covers what, and what becomes of numbers and cells that only one side has;
`limits` holds a number against a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfq_bench.errors import NotComparable, nearest
from tfq_bench.stats.arithmetic import arithmetic_notes
from tfq_bench.stats.compare import Delta, delta
from tfq_bench.stats.limits import check_hardware, held
from tfq_bench.stats.results import CellResults, Measured, by_identity, flaw, seeds_of
from tfq_bench.stats.rules import Rule
from tfq_bench.stats.verdicts import OUTCOMES, GateResult, Outcome, Verdict

__all__ = ["judge"]

_FINITE = "a finite number whose error can be computed"


def judge(
    run: Sequence[CellResults], baseline: Sequence[CellResults], rules: Sequence[Rule]
) -> GateResult:
    """Holds every cell of the run and of the baseline against the last rule that covers it.

    Args:
        run, baseline: matched by axes. rules: later ones win, see `tfq_bench.stats.rules`.
    """
    judging = _Judge(rules, [*run, *baseline])
    expected, found = by_identity(baseline), by_identity(run)
    absent = [cell for identity, cell in expected.items() if identity not in found]
    added = {c.identity_but_seed for identity, c in found.items() if identity not in expected}
    moved = [cell for cell in absent if cell.identity_but_seed in added]
    places = {cell.identity_but_seed for cell in moved}
    if moved:
        mine = [cell for cell in run if cell.identity_but_seed in places]
        judging.other_seeds([c for c in mine if c.identity not in expected], moved)
    for identity, cell in found.items():
        judging.cell(cell, expected.get(identity))
    for cell in absent:
        if cell.identity_but_seed not in places:
            judging.absent(cell, "the run has no such cell")
    order = {outcome: number for number, outcome in enumerate(OUTCOMES)}
    return GateResult(
        verdicts=tuple(
            sorted(
                judging.verdicts,
                key=lambda v: (not v.fails, order[v.outcome], v.label, v.metric or ""),
            )
        ),
        notes=tuple(judging.notes()),
        compared=judging.compared,
        remarks=arithmetic_notes(judging.pairs, words="baseline -> run"),
    )


class _Judge:
    def __init__(self, rules: Sequence[Rule], seen: Sequence[CellResults]) -> None:
        self.rules = rules
        self.seen = seen
        self.used: set[int] = set()
        self.verdicts: list[Verdict] = []
        self.compared = 0
        self.pairs: list[tuple[Measured, Measured]] = []

    def cell(self, cell: CellResults, expected: CellResults | None) -> None:
        """Judges a cell of the run; `expected` is the baseline's, None when it has none such."""
        known = expected.values if expected is not None else {}
        lacking = {name: base for name, base in known.items() if name not in cell.values}
        for name, base in known.items():
            mine = cell.values.get(name)
            if mine is not None and (rule := self._rule(cell.label, mine)):
                self._judge(cell.label, rule, mine, base)
        for name, mine in cell.values.items():
            if name not in known and (rule := self._rule(cell.label, mine)):
                self._new(cell.label, rule, mine, listed=expected is not None)
        for name, reason in cell.failed_metrics.items():
            self._failed_metric(cell.label, name, reason)
        reason = cell.reason or "the cell has no such metric"
        if cell.status == "failed":
            if not cell.failed_metrics:
                found = f"the cell failed: {reason}"
                self._whole(cell.label, "failed", self._expected(cell.label, lacking, found))
        elif cell.status == "unfinished":
            found = f"the cell is not finished: {reason}; run the suite again"
            self._whole(cell.label, "missing", self._expected(cell.label, lacking, found))
        else:
            self._lacking(cell.label, lacking, f"{cell.status} cell: {reason}")
            if expected is None and cell.status == "ok":
                self._whole(cell.label, "new", "the baseline has no such cell", fails=False)

    def absent(self, cell: CellResults, reason: str) -> None:
        """Says which numbers of a baseline's cell are missing."""
        self._lacking(cell.label, cell.values, reason)

    def other_seeds(self, mine: Sequence[CellResults], base: Sequence[CellResults]) -> None:
        """Says once that cells differ in nothing but their seed."""
        label = f"{len(base)} cells" if len(base) > 1 else base[0].label
        message = (
            f"seeds differ: expected the baseline's ({seeds_of(base)}), found {seeds_of(mine)}; "
            "numbers of other seeds do not compare. Run the suite with the baseline's seeds, or "
            "save a new baseline"
        )
        self._append("not-comparable", label, None, message, fails=False)

    def notes(self) -> Iterator[str]:
        """Rules of the file that covered nothing: most likely a typing error."""
        labels = {cell.label for cell in self.seen}
        metrics = {name for cell in self.seen for name in (*cell.values, *cell.failed_metrics)}
        for number, rule in enumerate(self.rules):
            if number in self.used or rule.built_in:
                continue
            why = ""
            if any(rule.names(cell.label, name) for cell in self.seen for name in cell.values):
                why = (
                    "; 'no-worse-than' covers no number without a direction, and the metric '*' "
                    "none that is volatile"
                )
            elif not any(rule.names(rule.cell, name) for name in metrics):
                why = f"; {_nearest('metric', rule.metric, metrics)}"
            elif not any(rule.names(label, rule.metric) for label in labels):
                why = f"; {_nearest('cell', rule.cell, labels)}"
            yield (
                f"a rule covers nothing: metric '{rule.metric}', cell '{rule.cell}', "
                f"{rule.text}{why}"
            )

    def _rule(self, label: str, measured: Measured) -> Rule | None:
        """The last rule that covers the number; None when it is ignored or not covered."""
        winner: Rule | None = None
        for number, rule in enumerate(self.rules):
            if rule.covers(label, measured.metric.definition):
                self.used.add(number)
                winner = rule
        return None if winner is None or winner.kind == "ignore" else winner

    def _lacking(self, label: str, lacking: Mapping[str, Measured], reason: str) -> None:
        """Numbers of the baseline that a cell does not have: one verdict that names them."""
        strict: dict[str, Measured] = {}
        lax: dict[str, Measured] = {}
        for name, base in lacking.items():
            if rule := self._rule(label, base):
                (strict if rule.on_missing == "fail" else lax)[name] = base
        for names, fails in ((strict, True), (lax, False)):
            if names:
                self._missing(label, names, reason, fails=fails)

    def _missing(
        self, label: str, names: Mapping[str, Measured], reason: str, *, fails: bool
    ) -> None:
        alone = next(iter(names.values())) if len(names) == 1 else None
        message = f"{_listed(names)}, found no number: {reason}"
        if alone is not None:
            rule = self._rule(label, alone)
            assert rule is not None
            self._add("missing", label, rule, None, alone, message, fails=fails)
        else:
            self._whole(label, "missing", message, fails=fails, ignorable=False)

    def _expected(self, label: str, lacking: Mapping[str, Measured], found: str) -> str:
        judged = {name: base for name, base in lacking.items() if self._rule(label, base)}
        return f"{_listed(judged)}, but {found}" if judged else found

    def _new(self, label: str, rule: Rule, mine: Measured, *, listed: bool) -> None:
        """Judges a number without a baseline; `listed` when it gets a row of its own."""
        if flaw(mine.metric) is not None or rule.kind in ("band", "at-most", "at-least"):
            self._judge(label, rule, mine, None)
        elif listed:
            message = f"the baseline has no such metric of this cell; found {mine.metric.value:.6g}"
            self._add("new", label, rule, mine, None, message, fails=False)

    def _judge(self, label: str, rule: Rule, mine: Measured, base: Measured | None) -> None:
        if (wrong := flaw(mine.metric)) is not None:
            message = f"expected {_FINITE}, found {wrong}"
            self._add("failed", label, rule, mine, base, message, fails=True)
            return
        if rule.kind == "finite":
            return
        definition = mine.metric.definition
        rule = rule.limit(definition, base.metric.definition if base is not None else None)
        difference = None
        if base is not None:
            try:
                difference = delta(mine.metric, base.metric)
                check_hardware(rule, mine, base)
            except NotComparable as error:
                message = f"{str(error).rstrip('.')}; save a new baseline"
                self._add("not-comparable", label, rule, mine, base, message, fails=False)
                return
            wrong = flaw(base.metric) or (
                None if difference.known else "a difference to the run that is not finite"
            )
            if wrong is not None and rule.kind.startswith(("no-worse", "same")):
                message = f"expected in the baseline {_FINITE}, found {wrong}; save a new baseline"
                self._add("failed", label, rule, mine, base, message, fails=True)
                return
        self.compared += 1
        if base is not None and rule.kind not in ("band", "at-most", "at-least"):
            self.pairs.append((base, mine))
        outcome, message = held(rule, mine, base, difference)
        fails = outcome == "regressed" or (
            outcome == "inconclusive" and rule.on_inconclusive == "fail"
        )
        self._add(outcome, label, rule, mine, base, message, fails=fails, difference=difference)

    def _failed_metric(self, label: str, name: str, reason: str) -> None:
        """A metric of the suite that failed; rules know it by that name, it has no definition."""
        last = False
        for number, rule in enumerate(self.rules):
            if rule.names(label, name):
                self.used.add(number)
                last = rule.kind == "ignore"
        if not last:
            message = f"expected the metric's numbers, but it failed: {reason}"
            self._append("failed", label, name, message, fails=True)

    def _whole(
        self,
        label: str,
        outcome: Outcome,
        message: str,
        *,
        fails: bool = True,
        ignorable: bool = True,
    ) -> None:
        if not (ignorable and self._ignores_cell(label)):
            self._append(outcome, label, None, message, fails=fails)

    def _ignores_cell(self, label: str) -> bool:
        last = False
        for number, rule in enumerate(self.rules):
            if rule.metric == "*" and rule.names(label, "*"):
                self.used.add(number)
                last = rule.kind == "ignore"
        return last

    def _append(
        self, outcome: Outcome, label: str, metric: str | None, message: str, *, fails: bool
    ) -> None:
        """A verdict without numbers."""
        self.verdicts.append(
            Verdict(
                outcome=outcome, label=label, metric=metric, fails=fails, rule="", message=message
            )
        )

    def _add(
        self,
        outcome: Outcome,
        label: str,
        rule: Rule,
        mine: Measured | None,
        base: Measured | None,
        message: str,
        *,
        fails: bool,
        difference: Delta | None = None,
    ) -> None:
        known = mine or base
        assert known is not None
        self.verdicts.append(
            Verdict(
                outcome=outcome,
                label=label,
                metric=known.metric.definition.name,
                fails=fails,
                rule=rule.text,
                message=f"{message}. {_definitions(mine, base)}",
                unit=known.metric.definition.unit,
                value=None if mine is None else mine.metric.value,
                baseline=None if base is None else base.metric.value,
                delta=difference,
            )
        )


def _listed(values: Mapping[str, Measured]) -> str:
    """What the baseline has, in words: a number with its value, several by their names."""
    if len(values) == 1:
        ((name, base),) = values.items()
        return f"expected '{name}' as in the baseline ({base.metric.value:.6g})"
    return f"expected the baseline's {len(values)} numbers ({', '.join(values)})"


def _nearest(kind: str, pattern: str, known: Iterable[str]) -> str:
    return f"no {kind} is called so, {nearest(pattern, known)}".rstrip(".")


def _definitions(mine: Measured | None, base: Measured | None) -> str:
    ids: Iterable[Any] = dict.fromkeys(m.definition for m in (mine, base) if m is not None)
    return f"Definition: {' and '.join(ids)}"
