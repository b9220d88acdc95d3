"""Labels beside points: no overlap, near their point, inside the chart."""

from itertools import combinations

import pytest

from tfq_bench_reports.charts.label_layout import overlap, placed
from tfq_bench_reports.charts.svg import Frame

FRAME = Frame()


def cluster(count, name="quantizer W8A8 · cpu"):
    """Labels of points a few px apart."""
    return [(f"{name} {i}", 150.0 + 3 * i, 150.0 + 2 * i) for i in range(count)]


@pytest.mark.parametrize("count", [1, 5, 9])
def test_labels_cover_neither_labels_nor_marks(count):
    """Every pair of boxes is disjoint, and no box lies on a point."""
    found = placed(FRAME, cluster(count), [], tight=True)
    assert count == len(found)
    assert not any(overlap(a.box, b.box) for a, b in combinations(found, 2))
    for label in found:
        for _, x, y in cluster(count):
            assert not overlap(label.box, (x - 5, y - 5, x + 5, y + 5))


def test_labels_stay_inside_the_chart():
    """A point at the right edge has its label at its left, ending at the point."""
    (label,) = placed(FRAME, [("a long name", FRAME.x[1] - 2, 100.0)], [], tight=True)
    assert label.box[2] < FRAME.x[1]
    assert "end" == label.anchor
    assert label.box[2] == label.at[0]


def test_no_room_is_said_not_hidden():
    """Forty long names in one spot have no free places."""
    assert placed(FRAME, cluster(40), [], tight=True) is None
    assert 40 == len(placed(FRAME, cluster(40), [], tight=False))


def test_bars_are_avoided_where_that_is_cheap():
    """The label of a point on a horizontal bar goes above or below it."""
    bar = (100.0, 148.0, 300.0, 152.0)
    (label,) = placed(FRAME, [("name", 200.0, 150.0)], [bar], tight=True)
    assert not overlap(label.box, bar)


def test_only_labels_that_stand_apart_have_a_leader():
    """A label beside its point needs no line to it."""
    near = placed(FRAME, cluster(1), [], tight=True)
    many = placed(FRAME, cluster(9), [], tight=True)
    assert near[0].leader is None
    assert any(label.leader for label in many)
