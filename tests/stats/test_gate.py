"""Every verdict, every exit code, and the words that come with them."""

import math
from dataclasses import replace

import pytest

from tfq_bench.errors import NotComparable
from tfq_bench.keys import definition_id
from tfq_bench.stats.gate import judge
from tfq_bench.stats.results import CellResults, Measured
from tfq_bench.stats.rules import BUILT_IN, Rule
from tfq_bench.types import Interval, MetricDefinition, MetricValue


def measured(
    value, error=None, *, name="fd", direction="lower", volatile=False, hardware="h", images=100
):
    """A number whose own interval is `± error`, without replicates."""
    definition = MetricDefinition(
        name=name,
        unit="",
        direction=direction,
        summary="",
        parameters={"images": images},
        volatile=volatile,
    )
    interval = None
    if error is not None:
        interval = Interval(low=value - error, high=value + error, level=0.95, method="m")
    return Measured(
        metric=MetricValue(definition=definition, value=value, n=images, interval=interval),
        definition=definition_id(definition),
        environment="e",
        hardware=hardware,
    )


def cell(*numbers, backend="cpu", status="ok", reason=None, key="k", seed="0"):
    """A cell whose place in the grid is its backend and its seed."""
    return CellResults(
        key=key,
        label=f"tiny / rtn W4A8 / {backend}",
        axes={"backend": backend, "seed": seed},
        status=status,
        reason=reason,
        values={number.metric.definition.name: number for number in numbers},
    )


def gate(run, base, *rules):
    """The result for lists of cells, or for one number each."""
    run, base = ([x] if isinstance(x, CellResults) else x for x in (run, base))
    run, base = ([cell(x)] if isinstance(x, Measured) else x for x in (run, base))
    return judge(run, base, (*BUILT_IN, *rules))


def outcomes(result):
    """Metric and outcome of every verdict, in order."""
    return [(verdict.metric, verdict.outcome) for verdict in result.verdicts]


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


def exact(value, *, margin=None, name="fd", direction="lower", **given):
    """A number with a margin, replicates, an interval or an n of its own."""
    number = measured(value, name=name, direction=direction)
    definition = replace(number.metric.definition, margin=margin)
    return replace(number, metric=replace(number.metric, definition=definition, **given))


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


def test_other_arithmetic_is_told_and_decides_nothing():
    """Once for all numbers; facts of one side only, and absolute limits, say nothing."""
    one, two = {"threads": "1", "torch": "2"}, {"threads": "2", "torch": "2", "GPU": "none"}
    numbers = measured(1.0), measured(1.0, name="kd")
    base = cell(*(replace(number, arithmetic=one) for number in numbers))
    run = cell(*(replace(number, arithmetic=two) for number in numbers))
    (remark,) = gate(run, base).remarks
    assert remark.startswith("2 numbers were computed in another way: threads 1 -> 2 (baseline ->")
    assert 0 == gate(run, base).exit_code
    assert () == gate(base, base).remarks == gate(cell(*numbers), base).remarks
    assert () == gate(run, base, Rule(kind="at-most", numbers=(2.0,))).remarks


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


def test_other_seeds_do_not_compare_and_are_told_once():
    """Not as so many missing cells; where only some seeds are missing, those are."""
    base = [
        cell(measured(1.0), measured(1.0, name="kd"), seed=s, backend=b) for s in "01" for b in "xy"
    ]
    run = [cell(measured(1.0), seed="2", backend=b) for b in "xy"]
    result = gate(run, base)
    verdict = next(v for v in result.verdicts if v.outcome == "not-comparable")
    assert (4, "4 cells") == (result.exit_code, verdict.label)
    assert "expected the baseline's (0, 1), found 2" in verdict.message
    assert not any(v.outcome == "missing" for v in result.verdicts)
    fewer = gate(base[:2], base)
    assert (1, 2) == (fewer.exit_code, sum(v.outcome == "missing" for v in fewer.verdicts))


def test_an_unfinished_cell_fails_whatever_the_baseline_knows():
    """A number that got lost could have been the bad one."""
    run = replace(
        cell(measured(1.0)), status="unfinished", reason="1 of its 2 metrics has no results"
    )
    for base in (measured(1.0), []):
        result = gate(run, base)
        assert (1, "missing") == (result.exit_code, result.verdicts[0].outcome)
        assert "not finished: 1 of its 2" in result.verdicts[0].message


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


def test_missing_numbers_and_cells_fail():
    """A benchmark that vanished is not a benchmark that passed."""
    base = [cell(measured(1.0), measured(2.0, name="kd")), cell(measured(1.0), backend="cuda")]
    result = gate([cell(measured(1.0))], base)
    assert [("kd", "missing"), ("fd", "missing"), ("fd", "pass")] == outcomes(result)
    assert 1 == result.exit_code
    assert "found no number: the run has no such cell" in result.verdicts[1].message


def test_two_cells_of_one_place_are_refused():
    """One of them would hide the other's numbers."""
    with pytest.raises(NotComparable, match="have the same place in the grid"):
        gate([cell(measured(1.0)), cell(measured(9.0), key="other")], measured(1.0))


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


def test_cells_match_by_axes():
    """A change of code moves a key and must still be gated."""
    result = gate(cell(measured(200.0), key="moved"), cell(measured(100.0), key="was"))
    assert [("fd", "regressed")] == outcomes(result)


def test_other_definitions_do_not_compare():
    """Exit code 4; a regression elsewhere wins with 1."""
    run, base = measured(1.0, images=200), measured(1.0, images=100)
    result = gate(run, base)
    assert [("fd", "not-comparable")] == outcomes(result)
    assert 4 == result.exit_code
    message = result.verdicts[0].message
    assert run.definition in message
    assert base.definition in message
    assert "images (200 and 100)" in message
    worse = gate(cell(run, measured(9.0, name="kd")), cell(base, measured(1.0, name="kd")))
    assert 1 == worse.exit_code
    assert "regressed" == worse.verdicts[0].outcome


TIMES = Rule(metric="ms", kind="no-worse-ratio", numbers=(1.1,))


def ms(value, hardware="h"):
    """A time in milliseconds."""
    return measured(value, name="ms", volatile=True, hardware=hardware)


def test_times_count_only_when_a_rule_names_them():
    """`*` does not name them; their absence does not count either."""
    everything = Rule(kind="no-worse-ratio", numbers=(1.02,))
    for rules in ((), (everything,)):
        result = gate(cell(measured(1.0), ms(9.0)), cell(measured(1.0), ms(1.0)), *rules)
        assert [("fd", "pass")] == outcomes(result)
    assert [("ms", "regressed")] == outcomes(gate(ms(9.0), ms(1.0), TIMES))


@pytest.mark.parametrize("hardware", ["other", None])
def test_times_of_other_hardware_do_not_compare(hardware):
    """Unless the rule says so; quality compares anywhere unless the rule says otherwise."""
    result = gate(ms(1.0, hardware), ms(1.0, hardware and "h"), TIMES)
    assert (4, [("ms", "not-comparable")]) == (result.exit_code, outcomes(result))
    assert "hardware" in result.verdicts[0].message
    anywhere = Rule(metric="ms", kind="no-worse-ratio", numbers=(1.1,), needs_same_hardware=False)
    assert 0 == gate(ms(1.0, hardware), ms(1.0), anywhere).exit_code
    assert 0 == gate(measured(1.0, hardware=hardware), measured(1.0)).exit_code
    here = Rule(kind="no-worse-ratio", numbers=(1.1,), needs_same_hardware=True)
    assert 4 == gate(measured(1.0, hardware=hardware), measured(1.0), here).exit_code


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
