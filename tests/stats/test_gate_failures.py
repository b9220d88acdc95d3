"""Numbers and cells that are not finite, failed, are missing or new, and the sum of it all."""

import math
from dataclasses import replace

import pytest

from tfq_bench.stats.rules import Rule
from tfq_bench.types import Interval

from .small_gate import cell, exact, gate, measured, ms, outcomes


def test_an_unfinished_cell_fails_whatever_the_baseline_knows():
    """A number that got lost could have been the bad one."""
    run = replace(
        cell(measured(1.0)), status="unfinished", reason="1 of its 2 metrics has no results"
    )
    for base in (measured(1.0), []):
        result = gate(run, base)
        assert (1, "missing") == (result.exit_code, result.verdicts[0].outcome)
        assert "not finished: 1 of its 2" in result.verdicts[0].message


def test_missing_numbers_and_cells_fail():
    """A benchmark that vanished is not a benchmark that passed."""
    base = [cell(measured(1.0), measured(2.0, name="kd")), cell(measured(1.0), backend="cuda")]
    result = gate([cell(measured(1.0))], base)
    assert [("kd", "missing"), ("fd", "missing"), ("fd", "pass")] == outcomes(result)
    assert 1 == result.exit_code
    assert "found no number: the run has no such cell" in result.verdicts[1].message


def test_a_missing_cell_is_told_once_with_all_its_numbers():
    """Eight messages about one cell are seven too many."""
    base = cell(*(measured(1.0, name=name) for name in "abcdefgh"))
    for run, outcome in (([], "missing"), (cell(status="failed", reason="oom"), "failed")):
        (verdict,) = gate(run, base).verdicts
        assert (outcome, None, True) == (verdict.outcome, verdict.metric, verdict.fails)
        assert "the baseline's 8 numbers (a, b, c, d, e, f, g, h)" in verdict.message


def test_missing_may_be_ignored_by_a_rule():
    """It is still listed."""
    base = [cell(measured(1.0)), cell(measured(1.0), backend="cuda")]
    rule = Rule(cell="* / cuda", kind="no-worse-ratio", numbers=(1.02,), on_missing="ignore")
    result = gate([cell(measured(1.0))], base, rule)
    assert [("fd", "missing"), ("fd", "pass")] == outcomes(result)
    assert 0 == result.exit_code


@pytest.mark.parametrize("status", ["skipped", "unfinished"])
def test_a_cell_that_did_not_run_is_missing(status):
    """With its reason."""
    result = gate(cell(status=status, reason="no GPU here"), measured(1.0))
    assert [("fd" if status == "skipped" else None, "missing")] == outcomes(result)
    assert "expected 'fd' as in the baseline (1)" in result.verdicts[0].message
    assert "no GPU here" in result.verdicts[0].message


def test_a_failed_cell_fails():
    """Whether or not the baseline knows it, and also when old numbers of it are still there."""
    failed = cell(status="failed", reason="out of memory")
    for result in (
        gate(failed, measured(1.0)),
        gate(failed, []),
        gate(cell(measured(1.0), status="failed", reason="out of memory"), measured(1.0)),
    ):
        assert "failed" == result.verdicts[0].outcome
        assert "out of memory" in result.verdicts[0].message
        assert 1 == result.exit_code


def test_ignored_cells_and_metrics_say_nothing():
    """An explicit rule silences failures, too."""
    ignore = Rule(kind="ignore")
    failed = cell(status="failed", reason="out of memory")
    assert () == gate(failed, measured(1.0), ignore).verdicts
    assert () == gate(measured(math.nan), measured(1.0), ignore).verdicts


def test_new_cells_and_metrics_pass_and_are_listed():
    """They get no limit before they are in a baseline."""
    run = [cell(measured(1.0), measured(9.0, name="kd")), cell(measured(9.0), backend="cuda")]
    result = gate(run, measured(1.0))
    assert [("kd", "new"), (None, "new"), ("fd", "pass")] == outcomes(result)
    assert 0 == result.exit_code


def test_absolute_limits_hold_for_new_cells():
    """They need no baseline."""
    limit = Rule(kind="at-most", numbers=(5.0,))
    assert ("fd", "regressed") == outcomes(gate(measured(9.0), [], limit))[0]


@pytest.mark.parametrize(("run", "base"), [([], []), (cell(measured(1.0)), []), (ms(1.0), ms(1.0))])
def test_nothing_compared_is_neither_success_nor_regression(run, base):
    """Exit code 5, in words."""
    result = gate(run, base)
    assert 5 == result.exit_code
    assert "nothing was compared" in result.summary


def test_the_worst_comes_first_and_all_are_counted():
    """Verdicts that fail lead, then by gravity."""
    numbers = {"a": 100.0, "b": 200.0, "c": 50.0, "d": math.nan}
    run = cell(*(measured(v, name=n) for n, v in numbers.items()))
    result = gate(run, cell(*(measured(100.0, name=n) for n in numbers)))
    assert [("d", "failed"), ("b", "regressed"), ("c", "improved"), ("a", "pass")] == outcomes(
        result
    )
    assert "Gate failed (1 failed, 1 regressed, 1 improved, 1 pass)." == result.summary


def test_a_failed_metric_fails_the_gate_and_the_other_numbers_count():
    """By its name in the suite and with its reason, unless a rule ignores it."""
    run = replace(cell(measured(1.0)), failed_metrics={"sharp": "no weights"})
    result = gate(run, measured(1.0))
    assert [("sharp", "failed"), ("fd", "pass")] == outcomes(result)
    assert (1, True) == (result.exit_code, "no weights" in result.verdicts[0].message)
    assert 0 == gate(run, measured(1.0), Rule(metric="sh*", kind="ignore")).exit_code


@pytest.mark.parametrize(
    "given",
    [
        {"interval": Interval(low=-math.inf, high=math.inf, level=0.95, method="se")},
        {"interval": Interval(low=0.0, high=math.nan, level=0.95, method="se")},
        {"interval": Interval(low=2.0, high=0.0, level=0.95, method="se")},
        {"replicates": (1.0, math.nan), "pairing": "p"},
        {"replicates": (math.inf, 1.0)},
        {"replicates": (1.0, 1.0), "n": 1},
    ],
)
def test_an_error_that_cannot_be_computed_fails(given):
    """Whichever side it is on, under a relative limit and under an absolute one, known or new."""
    broken, sound = exact(1.0, **given), measured(1.0)
    for run, base in ((broken, sound), (sound, broken), (broken, []), (broken, broken)):
        assert (1, "failed") == (gate(run, base).exit_code, gate(run, base).verdicts[0].outcome)
    assert 1 == gate(broken, sound, Rule(kind="at-least", numbers=(0.0,))).exit_code


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("direction", ["lower", "none"])
def test_what_is_not_finite_fails(value, direction):
    """Also a number without a direction, also a new one, also under an absolute limit."""
    for base in (measured(1.0, direction=direction), []):
        result = gate(measured(value, direction=direction), base)
        assert ("fd", "failed") == outcomes(result)[0]
        assert 1 == result.exit_code
        assert f"whose error can be computed, found {value}" in result.verdicts[0].message
    limit = Rule(kind="at-most", numbers=(5.0,))
    assert 1 == gate(measured(value), measured(1.0), limit).exit_code


def test_a_baseline_that_is_not_finite_fails():
    """Nothing can be no worse than NaN."""
    result = gate(measured(1.0), measured(math.nan))
    assert (1, "failed") == (result.exit_code, result.verdicts[0].outcome)
