"""What creeps is found, and what does not creep raises the alarm as rarely as is said."""

from dataclasses import replace

import numpy as np
import pytest

from tfq_bench.stats.rules import BUILT_IN, Rule
from tfq_bench.trends.drift import FALSE_ALARMS, FEWEST, trend

from .small_history import of, point, series

NO_MARGIN = (*BUILT_IN, Rule(metric="[fm]*", kind="no-worse-ratio", numbers=(1.0,)))
"""The limit is the reference itself, so that nothing but the interval keeps the alarm silent."""


def alarm(values, *, rules=BUILT_IN, together=1, **given):
    """At which run a history of these values first says `drift` when it is asked after each run."""
    whole = series(values, **given)
    for runs in range(FEWEST, len(values) + 1):
        if trend(of(whole.points[:runs]), rules, together=together).outcome == "drift":
            return runs
    return None


def noise(kind, size, seed):
    """Standard deviation 1, of three shapes."""
    draw = np.random.default_rng(seed)
    if kind == "normal":
        return draw.normal(size=size)
    if kind == "uniform":
        return draw.uniform(-np.sqrt(3), np.sqrt(3), size=size)
    return draw.standard_t(5, size=size) / np.sqrt(5 / 3)  # now and then far off, as times are


@pytest.mark.parametrize("kind", ["normal", "uniform", "heavy tails"])
@pytest.mark.parametrize("volatile", [False, True], ids=["interval", "steps"])
def test_false_alarms_are_as_rare_as_stated(kind, volatile):
    """Of 300 series without drift, each looked at after all of 20 runs, at most 5 % ever alarm."""
    number = {"name": "ms", "volatile": True} if volatile else {"error": 1.96}
    found = [
        alarm(100 + values, rules=NO_MARGIN, **number) for values in noise(kind, (300, 20), seed=1)
    ]
    assert sum(runs is not None for runs in found) <= FALSE_ALARMS * len(found)


def test_the_share_is_that_of_all_series_together():
    """Of 40 histories of ten series each, judged together, at most 5 % ever alarm."""
    histories = noise("normal", (40, 10, 15), seed=2)
    found = [
        any(alarm(100 + values, rules=NO_MARGIN, together=10, error=1.96) for values in history)
        for history in histories
    ]
    assert sum(found) <= FALSE_ALARMS * len(found)


def test_a_slow_drift_is_found():
    """0.5 % a run under noise of 0.2 %, among 20 series: found by run 15, in each of 100 cases."""
    found = []
    for values in noise("normal", (100, 15), seed=3):
        drifting = 100 + 0.5 * np.arange(15) + 0.2 * values
        assert np.diff(drifting).max() < 2
        found.append(alarm(drifting, together=20, error=1.96 * 0.2))
    assert None not in found
    assert np.median(found) <= 12


def test_a_slow_drift_of_a_time_is_found():
    """2 % a run under noise of 1 %, which no interval knows: found by run 25, in each of 100."""
    rules = (*BUILT_IN, Rule(metric="ms", kind="no-worse-ratio", numbers=(1.05,)))
    found = [
        alarm(100 + 2 * np.arange(25) + values, rules=rules, name="ms", volatile=True)
        for values in noise("normal", (100, 25), seed=6)
    ]
    assert None not in found


def test_a_drift_without_noise_is_found_when_it_passes_the_limit():
    """Exact numbers, 0.3 % a run: found as soon as 2 % are passed, each step being a seventh."""
    values = [100 + 0.3 * run for run in range(12)]
    assert next(n for n, value in enumerate(values, 1) if value > 1.02 * 100.3) == alarm(values)


def test_a_single_jump_is_a_drift():
    """One that was let through is still worse than before; of a time it is no noise."""
    values = [100.0] * FEWEST + [105.0]
    assert FEWEST + 1 == alarm(values)
    assert FEWEST + 1 == alarm(values, rules=NO_MARGIN, name="ms", volatile=True)


def test_the_other_way_is_an_improvement():
    """A decline of a distance, or a rise of a quality, is no drift."""
    assert "improved" == trend(series([100 - n for n in range(9)]), BUILT_IN, together=1).outcome
    better = series([30 + n for n in range(9)], name="psnr", direction="higher")
    assert "improved" == trend(better, BUILT_IN, together=1).outcome
    worse = series([30 - n for n in range(9)], name="psnr", direction="higher")
    assert "drift" == trend(worse, BUILT_IN, together=1).outcome


def test_the_verdict_has_its_numbers():
    """Reference, difference, limit and rule are those that decided."""
    found = trend(series([100.0, 90.0, 101.0, 100, 100, 110]), BUILT_IN, together=1)
    assert ("drift", 1, 102.0) == (found.outcome, found.reference.run.number, found.limit)
    assert 10.0 == found.difference.value
    assert "no worse than 2 %" == found.rule
    assert "against run 1 (0000000000): expected at most 102" in found.message


@pytest.mark.parametrize(
    ("values", "given", "outcome"),
    [
        ([100.0] * (FEWEST - 1), {}, "too few runs"),
        ([100.0] * FEWEST, {}, "steady"),
        ([100.0] * FEWEST, {"ended": True}, "ended"),
        ([100.0] * FEWEST, {"direction": "none"}, "not judged"),
        ([100.0] * FEWEST, {"name": "ms", "volatile": True}, "not judged"),
    ],
)
def test_what_is_not_judged_says_so(values, given, outcome):
    """No alarm comes from what no rule covers, or of which there is too little."""
    assert outcome == trend(series(values, **given), BUILT_IN, together=1).outcome


def test_times_are_held_against_those_of_like_hardware():
    """A rule by name judges times; runs of another machine do not count."""
    rules = (*BUILT_IN, Rule(metric="ms", kind="no-worse-ratio", numbers=(1.02,)))
    time = {"name": "ms", "volatile": True}
    slow = [point(50.0, n, hardware="old", **time) for n in range(1, 7)]
    fast = [point(10.0, n, hardware="new", **time) for n in range(7, 13)]
    assert "steady" == trend(of([*fast, *slow[:0]]), rules, together=1).outcome
    assert "steady" == trend(of([*slow, *fast]), rules, together=1).outcome
    assert "too few runs" == trend(of([*fast, *slow[:1]]), rules, together=1).outcome
    unknown = [point(50.0, n, hardware=None, **time) for n in range(1, 9)]
    assert "too few runs" == trend(of(unknown), rules, together=1).outcome


def test_the_stricter_margin_counts():
    """A later version of a metric cannot loosen the limit that the first runs were measured by."""

    def margin(one, amount):
        metric = one.measured.metric
        definition = replace(metric.definition, margin=amount)
        return replace(
            one, measured=replace(one.measured, metric=replace(metric, definition=definition))
        )

    points = series([100.0] * 7 + [101.0]).points
    loose = [margin(p, 0.5 if p.run.number < 5 else 50.0) for p in points]
    assert 100.5 == trend(of(loose), BUILT_IN, together=1).limit
    assert "drift" == trend(of(loose), BUILT_IN, together=1).outcome
