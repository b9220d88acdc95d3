"""What a limit says of a number: margins, intervals, rules and the words that come with them."""

from dataclasses import replace

import pytest

from tfq_bench.keys import definition_id
from tfq_bench.stats.rules import Rule

from .small_gate import cell, exact, gate, measured, outcomes


@pytest.mark.parametrize(
    ("value", "error", "direction", "outcome", "code"),
    [
        (100.0, 0.5, "lower", "pass", 0),
        (101.0, 0.5, "lower", "pass", 0),
        (102.0, 0.5, "lower", "inconclusive", 0),
        (103.0, 0.5, "lower", "regressed", 1),
        (99.0, 0.5, "lower", "improved", 0),
        (99.0, 0.5, "higher", "pass", 0),
        (98.0, 0.5, "higher", "inconclusive", 0),
        (97.0, 0.5, "higher", "regressed", 1),
        (101.0, 0.5, "higher", "improved", 0),
    ],
)
def test_the_whole_interval_decides(value, error, direction, outcome, code):
    """Two per cent of 100 is a margin of 2; noise across it fails no build."""
    result = gate(measured(value, error, direction=direction), measured(100.0, direction=direction))
    assert [("fd", outcome)] == outcomes(result)
    assert code == result.exit_code


@pytest.mark.parametrize(
    ("value", "outcome"), [(102.0, "pass"), (102.001, "regressed"), (99.0, "improved")]
)
def test_exact_numbers_compare_by_value(value, outcome):
    """Packed bytes have no interval; their difference is known."""
    assert [("fd", outcome)] == outcomes(gate(measured(value), measured(100.0)))


def test_margins_hold_for_negative_baselines():
    """Two per cent of the size, not of the sign."""
    assert [("fd", "pass")] == outcomes(gate(measured(-99.0), measured(-100.0)))
    assert [("fd", "regressed")] == outcomes(gate(measured(-97.0), measured(-100.0)))


def test_a_message_names_both_sides_interval_and_definition():
    """What was expected, what was found, how sure, and which definition."""
    (verdict,) = gate(measured(103.0, 0.5), measured(100.0)).verdicts
    assert "expected at most 102 (baseline 100, no worse than 2 %)" in verdict.message
    assert "found 103, difference +3 [+2.5, +3.5] (unpaired)" in verdict.message
    assert measured(0.0).definition in verdict.message


@pytest.mark.parametrize(
    ("rule", "value", "outcome"),
    [
        (Rule(kind="no-worse-margin", numbers=(5.0,)), 104.0, "pass"),
        (Rule(kind="no-worse-margin", numbers=(5.0,)), 106.0, "regressed"),
        (Rule(kind="band", numbers=(90.0, 110.0)), 110.0, "pass"),
        (Rule(kind="band", numbers=(90.0, 110.0)), 89.0, "regressed"),
        (Rule(kind="at-most", numbers=(105.0,)), 105.0, "pass"),
        (Rule(kind="at-most", numbers=(105.0,)), 105.5, "regressed"),
        (Rule(kind="at-least", numbers=(95.0,)), 94.0, "regressed"),
        (Rule(kind="at-least", numbers=(95.0,)), 1000.0, "pass"),
        (Rule(kind="same", numbers=(0.01, 0.5)), 101.5, "pass"),
        (Rule(kind="same", numbers=(0.01, 0.5)), 98.4, "regressed"),
    ],
)
def test_limits_of_a_rule(rule, value, outcome):
    """A file's rule replaces the built-in one."""
    assert [("fd", outcome)] == outcomes(gate(measured(value), measured(100.0), rule))


def test_the_last_rule_that_covers_wins():
    """A rule for another cell does not."""
    strict = Rule(kind="at-most", numbers=(1.0,))
    loose = Rule(metric="fd", kind="at-most", numbers=(1000.0,))
    other = Rule(cell="* / cuda", kind="at-most", numbers=(0.0,))
    result = gate(measured(500.0), measured(100.0), strict, loose, other)
    assert [("fd", "pass")] == outcomes(result)
    (note,) = result.notes
    assert note.startswith("a rule covers nothing: metric '*', cell '* / cuda', at most 0; no cell")
    assert (2, True) == (result.exit_code, "undecided: a rule covers nothing" in result.summary)


def test_brackets_in_a_label_mean_themselves_first():
    """A label pasted into a rule, or a part of it, covers its cell; classes work where they fit."""
    limit = {"kind": "at-least", "numbers": (50.0,)}
    run = replace(cell(measured(9.0)), label="tiny [source=/a[1]] / rtn W4A8 / cpu")
    for pattern in (run.label, "tiny [source=/a[1]] / *", "* / rtn W[48]A8 / *"):
        assert (1, ()) == (lambda r: (r.exit_code, r.notes))(
            gate(run, replace(run), Rule(cell=pattern, **limit))
        )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(metric="fdd", kind="ignore"), "no metric is called so, did you mean 'fd'"),
        (Rule(cell="tiny / rtn W4A8 / cpi", kind="ignore"), "did you mean 'tiny / rtn W4A8 / cpu'"),
        (Rule(kind="no-worse-ratio", numbers=(1.1,)), "covers no number without a direction"),
    ],
)
def test_a_rule_that_covers_nothing_does_not_pass(rule, words):
    """Exit code 2 with the nearest names or the reason; a failure is still exit code 1."""
    other = [measured(1.0, direction="none"), measured(1.0, name="ms", volatile=True)]
    run = other if rule.kind != "ignore" else measured(1.0)
    run = cell(*run) if isinstance(run, list) else run
    result = gate(run, run, rule)
    assert (2, True) == (result.exit_code, words in result.notes[0])
    assert 1 == gate(measured(9.0), measured(1.0), Rule(metric="fdd", kind="ignore")).exit_code


@pytest.mark.parametrize(
    ("name", "was", "now", "margin"), [("ssim", 0.9999, 0.9961, 0.001), ("psnr", 40, 39.45, 0.25)]
)
def test_margins_belong_to_the_definition(name, was, now, margin):
    """Two percent of a bounded number or of decibels would be a real loss; the id is the same."""
    old, new = (exact(v, name=name, direction="higher", margin=margin) for v in (was, now))
    result = gate(new, old)
    assert (1, "regressed") == (result.exit_code, result.verdicts[0].outcome)
    assert f"no worse than {margin}" == result.verdicts[0].rule
    assert (
        0
        == gate(
            exact(now, name=name, direction="higher"), exact(was, name=name, direction="higher")
        ).exit_code
    )
    assert (
        definition_id(new.metric.definition)
        == measured(1.0, name=name, direction="higher").definition
    )
    lenient = exact(now, name=name, direction="higher", margin=9.0)
    assert 1 == gate(lenient, old).exit_code, "the stricter of run and baseline counts"


def test_numbers_without_direction_take_only_bands_and_the_like():
    """Neither up nor down is worse."""
    run, base = measured(9.0, direction="none"), measured(1.0, direction="none")
    assert () == gate(run, base).verdicts
    band = Rule(kind="band", numbers=(0.0, 2.0))
    assert [("fd", "regressed")] == outcomes(gate(run, base, band))


def test_inconclusive_fails_when_the_rule_says_so():
    """For those who would rather sample more than guess."""
    rule = Rule(kind="no-worse-ratio", numbers=(1.02,), on_inconclusive="fail")
    result = gate(measured(102.0, 0.5), measured(100.0), rule)
    assert (1, [("fd", "inconclusive")]) == (result.exit_code, outcomes(result))
