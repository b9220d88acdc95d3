"""Where a number changed, and that the four causes are told apart by what records hold."""

from dataclasses import replace

import numpy as np
import pytest

from tfq_bench.trends.causes import changes, search

from .small_history import CODE, MACHINE, point, series

NEW_CODE = {**CODE, "code of my_method": "b" * 8}
NEW_TORCH = {**CODE, "version of torch": "2.15.0"}
NEW_MACHINE = {**MACHINE, "processor": "Intel avx512f"}
NOISY = ({"error": 1.96}, {"name": "ms", "volatile": True})
"""Noise of standard deviation 1 that the interval knows, and that only the steps show."""

OWN = ("my-method==1.0", "tfq-bench==0.1.0")


def between(after, *, before=None, value=2.0, **given):
    """The change between two runs, the second of which is made of `after`."""
    first = before or point(1.0, 1)
    (found,) = changes([first, point(value, 2, code=after, **given)])
    return found.cause, found.evidence


@pytest.mark.parametrize(
    ("code", "cause", "evidence"),
    [
        ((NEW_CODE, MACHINE), "method", "quantizer 'rtn': code of my_method changed"),
        (({**CODE, "option steps": 3}, MACHINE), "method", "quantizer 'rtn': steps none -> 3"),
        ((NEW_TORCH, MACHINE), "environment", "torch 2.14.1 -> 2.15.0"),
        ((CODE, NEW_MACHINE), "environment", "this machine: processor AMD avx2 -> Intel avx512f"),
    ],
)
def test_what_a_number_is_made_of_decides(code, cause, evidence):
    """Code and options are the method, libraries and processor the environment."""
    assert (cause, (evidence,)) == between(code)


def test_both_at_once_are_not_decided():
    """Nobody can say which of the two it was, and nobody does."""
    cause, evidence = between((NEW_CODE, NEW_MACHINE))
    assert "undecided" == cause
    assert 2 == len(evidence)
    assert ("undecided", ()) == between((CODE, MACHINE))


def test_another_definition_is_told_before_anything_else():
    """Its numbers do not compare, whatever else moved; what differs is said."""
    cause, evidence = between((NEW_CODE, MACHINE), images=200)
    assert "definition" == cause
    assert "images (100 and 200)" in evidence[0]


def test_the_version_of_an_own_distribution_is_the_method():
    """That of the quantizer is, that of a library is not."""
    facts = {**CODE, "version of my-method": "1.0"}
    first = point(1.0, 1, code=(facts,), plugins=OWN)
    later = {**facts, "version of my-method": "1.1"}
    assert "method" == between((later,), before=first, plugins=OWN)[0]


def test_without_ingredients_plugins_and_environment_decide():
    """Runs of versions that noted no ingredients have these."""
    place = {"versions": {"torch": "2.14.1"}, "hardware": {"cpu": "EPYC", "gpus": []}}
    first = point(1.0, 1, code=(), plugins=OWN, place=place)
    other = {**place, "hardware": {"cpu": "Xeon", "gpus": [{"name": "H100"}]}}
    assert ("undecided", ()) == between((), before=first, plugins=OWN, place=place)
    cause, evidence = between((), before=first, plugins=OWN, place=other)
    assert ("environment", ("processor EPYC -> Xeon", 'GPU [] -> ["H100"]')) == (cause, evidence)
    edited = ("my-method==1.0+code.1234", "tfq-bench==0.1.0")
    cause, evidence = between((), before=first, plugins=edited, place=place)
    assert ("method", ("my-method 1.0 -> 1.0+code.1234",)) == (cause, evidence)


def test_a_step_within_the_interval_is_noise():
    """Code that moved is no cause of what did not change."""
    first = point(1.0, 1, error=0.5)
    assert ("noise", ()) == between((NEW_CODE, MACHINE), before=first, value=1.3, error=0.5)
    assert ("noise", ()) == between((NEW_CODE, MACHINE), value=1.0)


def test_few_times_say_nothing():
    """From two runs nobody knows how far equal runs differ in a time."""
    time = {"name": "ms", "volatile": True}
    assert ("noise", ()) == between((NEW_CODE,), before=point(1.0, 1, **time), value=9.0, **time)


def test_the_run_of_the_change_is_found():
    """Among noise that the interval knows, and among noise that only the steps know."""
    draw = np.random.default_rng(4).normal(size=24)
    for number in NOISY:
        values = 100 + draw + 20 * (np.arange(24) >= 13)
        points = list(series(values, **number).points)
        points[13:] = [replace(p, ingredients=(NEW_CODE, MACHINE)) for p in points[13:]]
        (found,) = search(points).changes
        assert (13, 14, "method") == (found.before.run.number, found.after.run.number, found.cause)


def test_noise_alone_is_hardly_ever_a_change():
    """5 % of series without a change have one: in 300, at most 15 and three standard errors."""
    draw = np.random.default_rng(5).normal(size=(300, 20))
    for number in NOISY:
        found = [search(series(100 + values, **number).points).changes for values in draw]
        assert sum(map(bool, found)) <= 15 + 3 * np.sqrt(300 * 0.05 * 0.95)


def test_a_creep_is_told_from_a_step():
    """No step is larger than noise, the first and the last run are apart by more."""
    values = [100 + 0.5 * run for run in range(12)]
    found = search(series(values, error=1.0).points)
    assert found.creeping
    assert (1, 12) == (found.largest.before.run.number, found.largest.after.run.number)
    assert not search(series([100.0] * 12, error=1.0).points).changes


def test_the_largest_change_comes_first_to_mind():
    """Of two steps the larger is looked into; without any, the change of the definition."""
    found = search(series([1.0, 1.0, 5.0, 5.0, 5.0, 4.0, 4.0, 4.0]).points)
    assert 2 == len(found.changes)
    assert 3 == found.largest.after.run.number
    redefined = search([point(1.0, 1), point(1.0, 2, images=7)])
    assert "definition" == redefined.largest.cause
