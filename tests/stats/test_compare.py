"""Differences are paired where they may be, and refused where definitions differ."""

import dataclasses
import math

import numpy as np
import pytest

from tfq_bench.errors import NotComparable, UsageError
from tfq_bench.stats.compare import compare_runs, compare_with_cell, compare_with_reference, delta
from tfq_bench.stats.results import CellResults, Measured, find_cell
from tfq_bench.types import Interval, MetricDefinition, MetricValue


def value(number, replicates=(), *, pairing="p", interval=None, direction="lower", **parameters):
    """A metric value; `parameters` go into its definition."""
    volatile = bool(parameters.pop("volatile", False))
    definition = MetricDefinition(
        name="fd",
        unit="",
        direction=direction,
        summary="",
        parameters=parameters,
        volatile=volatile,
    )
    return MetricValue(
        definition=definition,
        value=number,
        n=100,
        interval=interval,
        replicates=tuple(replicates),
        pairing=pairing,
    )


def interval(low, high, level=0.95):
    """An interval by whatever method."""
    return Interval(low=low, high=high, level=level, method="m")


def cell(key, values, *, backend="simulate", reference=None):
    """A cell with metric values and their hardware, by name."""
    return CellResults(
        key=key,
        label=f"tiny / rtn / {backend}",
        axes={"backend": backend},
        status="ok",
        reference=reference,
        values={
            name: Measured(metric=metric, definition="d", environment="e", hardware=hardware)
            for name, (metric, hardware) in values.items()
        },
    )


@pytest.fixture
def shared_noise():
    """Replicates `[200]` of two values: sampling noise of 1 in common, 0.01 each of their own."""
    rng = np.random.Generator(np.random.PCG64(0))
    common = rng.normal(0.0, 1.0, 200)
    a, b = (common + rng.normal(0.0, 0.01, 200) for _ in range(2))
    return a + 10.2, b + 10.0


def test_pairing_takes_shared_noise_out(shared_noise):
    """A difference of 0.2 is certain when paired and lost in noise when not."""
    a, b = shared_noise
    paired = delta(value(10.2, a), value(10.0, b))
    unpaired = delta(value(10.2, a), value(10.0, b, pairing="other"))
    assert pytest.approx(0.2) == paired.value == unpaired.value
    assert (True, False) == (paired.paired, unpaired.paired)
    assert 0.1 < paired.low < paired.high < 0.3
    assert unpaired.low < 0 < unpaired.high


def test_the_paired_interval_is_the_normal_one(shared_noise):
    """`value ± 1.96 std(a_i - b_i)`."""
    a, b = shared_noise
    half = 1.959963984540054 * np.std(a - b, ddof=1)
    found = delta(value(10.2, a), value(10.0, b))
    assert pytest.approx((0.2 - half, 0.2 + half)) == (found.low, found.high)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (value(2.0, (1.0, 3.0, 2.0)), value(1.0, (1.0, 2.0))),
        (value(2.0, (1.0, 3.0), pairing=None), value(1.0, (1.0, 2.0), pairing=None)),
        (value(2.0, (1.0, math.nan)), value(1.0, (1.0, 2.0))),
    ],
)
def test_replicates_pair_only_when_pairing_and_number_are_equal(a, b):
    """Anything else would pair different images."""
    assert not delta(a, b).paired


def test_unpaired_errors_add_as_variances():
    """Half widths of 3 and 4 make one of 5, from intervals of any level."""
    z99 = 2.5758293035489004
    a = value(10.0, interval=interval(7.0, 13.0), pairing=None)
    wide = 4.0 * z99 / 1.959963984540054
    b = value(8.0, interval=interval(8.0 - wide, 8.0 + wide, 0.99), pairing=None)
    found = delta(a, b)
    assert pytest.approx((2.0, -3.0, 7.0)) == (found.value, found.low, found.high)


def test_exact_numbers_have_no_interval():
    """Packed bytes differ or they do not."""
    found = delta(value(5.0), value(3.0))
    assert (2.0, None) == (found.value, found.interval)


def test_an_error_that_cannot_be_computed_is_infinite():
    """Unknown noise must not look like no noise."""
    found = delta(value(5.0, (1.0, math.nan)), value(3.0))
    assert (-math.inf, math.inf) == (found.low, found.high)


def test_different_definitions_are_refused_with_what_differs():
    """Both ids and each differing parameter are named, nested ones too."""
    a = value(1.0, images=100, sampler={"steps": 10, "eta": 0})
    b = value(1.0, images=200, sampler={"steps": 20, "eta": 0}, resize="clean")
    with pytest.raises(NotComparable) as caught:
        delta(a, b)
    message = str(caught.value)
    assert 2 == message.count("fd@")
    assert "images (100 and 200)" in message
    assert "sampler.steps (10 and 20)" in message
    assert "resize (only one of them has it)" in message
    assert "eta" not in message


@pytest.mark.parametrize(
    ("direction", "a", "b", "mark"),
    [
        ("lower", 5.0, 3.0, "better"),
        ("lower", 3.0, 5.0, "worse"),
        ("higher", 5.0, 3.0, "worse"),
        ("none", 5.0, 3.0, "differs"),
        ("lower", 5.0, 5.0, "equal"),
        ("lower", math.nan, 5.0, "not comparable"),
    ],
)
def test_marks_go_by_direction(direction, a, b, mark):
    """B is better or worse than A, never the other way round."""
    one, two = (cell("c", {"fd": (value(v, direction=direction), "h")}) for v in (a, b))
    (row,) = compare_runs([one], [two])
    assert mark == row.mark


def test_runs_are_matched_by_axes_and_nothing_is_dropped(shared_noise):
    """Keys may differ; cells and metrics of one side only are listed; noise is called noise."""
    a, b = shared_noise
    first = [
        cell("c0", {"fd": (value(10.2, a), "h"), "kd": (value(1.0), "h")}),
        cell("c1", {"fd": (value(1.0), "h")}, backend="cpu"),
    ]
    second = [
        cell("moved", {"fd": (value(10.0, b, pairing="other"), "h")}),
        cell("c2", {"fd": (value(1.0), "h")}, backend="cuda"),
    ]
    found = [(row.label, row.metric, row.mark) for row in compare_runs(first, second)]
    assert [
        ("tiny / rtn / simulate", "fd", "no difference shown"),
        ("tiny / rtn / simulate", "kd", "only in A"),
        ("tiny / rtn / cpu", "fd", "only in A"),
        ("tiny / rtn / cuda", "fd", "only in B"),
    ] == found


def test_times_of_other_hardware_do_not_compare():
    """Quality does."""
    a = cell("c", {"ms": (value(5.0, volatile=True), "h1"), "fd": (value(5.0), "h1")})
    b = cell("c", {"ms": (value(3.0, volatile=True), "h2"), "fd": (value(3.0), "h2")})
    ms, fd = compare_runs([a], [b])
    assert ("not comparable", None, "better") == (ms.mark, ms.delta, fd.mark)
    assert "hardware" in ms.reason


def test_cells_compare_with_their_full_precision_cell():
    """A is full precision, B the cell; metrics that full precision lacks are left out."""
    full = cell("fp", {"fd": (value(4.0), "h")}, backend="eager")
    low = cell("c", {"fd": (value(5.0), "h"), "psnr": (value(30.0), "h")}, reference="fp")
    (row,) = compare_with_reference([full, low])
    assert ("fd", 4.0, 5.0, 1.0, "worse") == (row.metric, row.a, row.b, row.delta.value, row.mark)


def test_cells_compare_with_another_one_of_their_model():
    """A is the chosen cell; cells of other models, and what it lacks, are left out."""
    one = cell("one", {"fd": (value(4.0), "h")})
    other = cell("two", {"fd": (value(5.0), "h"), "psnr": (value(30.0), "h")})
    stranger = dataclasses.replace(other, axes={**other.axes, "model": "stranger"})
    (row,) = compare_with_cell([one, other, stranger], one)
    assert ("fd", 4.0, 5.0, "worse") == (row.metric, row.a, row.b, row.mark)


def test_cells_are_found_by_label_or_key():
    """Whatever names none or several is refused, with what is near."""
    first, second = cell("ab1", {}), cell("ab2", {}, backend="cpu")
    assert first is find_cell([first, second], "tiny / rtn / simulate")
    assert second is find_cell([first, second], "ab2")
    with pytest.raises(UsageError, match=r"several cells are called 'ab': ab1 .*, ab2"):
        find_cell([first, second], "ab")
    with pytest.raises(UsageError, match="did you mean 'tiny / rtn / cpu'"):
        find_cell([first, second], "tiny / rtn / cpux")
