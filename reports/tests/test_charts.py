"""Charts: everything drawn lies inside, is named, and is placed by the numbers."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from tfq_bench_reports.charts import Curve, Dot, line_chart, scatter_chart
from tfq_bench_reports.scale import fitted

WORDS = {"key": "k", "title": "A title", "description": "What it shows", "x_label": "x"}


def scatter(dots):
    """A parsed scatter chart."""
    return ET.fromstring(scatter_chart(dots, y_label="y", **WORDS))


def lines(curves):
    """A parsed line chart."""
    return ET.fromstring(line_chart(curves, y_label="y", reverse=True, **WORDS))


def labels(svg):
    """Names that stand beside points and lines."""
    return [element.text for element in svg.iter("text") if "label" in element.get("class")]


def test_larger_values_are_higher_and_to_the_right():
    """Positions follow the numbers."""
    svg = scatter(
        [Dot(name="a", execution="lowered", x=1, y=1), Dot(name="b", execution="lowered", x=2, y=5)]
    )
    (a, b) = list(svg.iter("rect"))
    assert float(a.get("x")) < float(b.get("x"))
    assert float(a.get("y")) > float(b.get("y"))


def test_shape_says_how_a_cell_was_executed():
    """Colour is not the only sign."""
    kinds = ("full-precision", "simulated", "lowered")
    svg = scatter([Dot(name=k, execution=k, x=i, y=i) for i, k in enumerate(kinds)])
    marks = [e.tag for e in svg.iter() if "mark" in e.get("class", "")]
    assert ["polygon", "circle", "rect"] == marks


def test_labels_of_crowded_points_do_not_overlap():
    """Cells of equal cost and quality can still be read."""
    svg = scatter(
        [Dot(name=f"quantizer W{i}A8", execution="lowered", x=1 + i * 1e-3, y=2) for i in range(6)]
    )
    texts = [e for e in svg.iter("text") if e.get("class") == "label"]
    boxes = [(float(e.get("x")), float(e.get("y")), len(e.text) * 6.9) for e in texts]
    assert 6 == len(boxes)
    for number, (x, y, width) in enumerate(boxes):
        for other_x, other_y, other_width in boxes[:number]:
            apart = abs(y - other_y) >= 14 or x + width <= other_x or other_x + other_width <= x
            assert apart


def test_text_is_escaped():
    """Names of plugins are text, also in charts."""
    svg = scatter([Dot(name="<b>&", execution="lowered", x=1, y=1)])
    assert "<b>&" in labels(svg)


def test_wide_range_is_logarithmic_and_starts_with_noise():
    """Errors over several decades get a logarithmic axis; the first timestep stands at the left."""
    svg = lines([Curve(name="a", x=(900.0, 500.0, 0.0), y=(1e-5, 1e-3, 1e-1))])
    ticks = [e.text for e in svg.iter("text") if e.get("class") == "tick"]
    assert "10⁻³" in ticks
    points = next(svg.iter("polyline")).get("points").split()
    xs, ys = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert xs[0] < xs[1] < xs[2]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)


def test_exact_zero_lies_on_a_logarithmic_axis():
    """A cell without any error keeps its line and does not flatten those of others."""
    svg = lines(
        [
            Curve(name="exact", x=(2.0, 1.0, 0.0), y=(0.0, 0.0, 0.0)),
            Curve(name="rough", x=(2.0, 1.0, 0.0), y=(1e-4, 1e-2, 1.0)),
        ]
    )
    exact, rough = (
        [float(point.split(",")[1]) for point in line.get("points").split()]
        for line in svg.iter("polyline")
    )
    assert [exact[0]] * 3 == exact
    assert exact[0] >= max(rough)
    assert rough[0] - rough[1] == pytest.approx(rough[1] - rough[2], abs=0.2)
    assert ["exact", "rough"] == labels(svg)[-2:]


def test_many_lines_keep_their_labels_apart():
    """A chart grows with the number of cells."""
    svg = lines([Curve(name=f"cell {i}", x=(1.0, 0.0), y=(0.1, 0.1)) for i in range(40)])
    texts = [e for e in svg.iter("text") if "label t" in e.get("class")]
    at = sorted(float(e.get("y")) for e in texts)
    assert 40 == len(at)
    assert all(b - a >= 14 for a, b in pairwise(at))
    assert 0 < at[0]
    assert at[-1] < float(svg.get("viewBox").split()[3])


def test_values_that_cannot_be_drawn_are_left_out():
    """NaN leaves no 'nan' in the drawing."""
    text = line_chart(
        [Curve(name="a", x=(2.0, 1.0, 0.0), y=(0.1, float("nan"), 0.2))],
        y_label="y",
        reverse=True,
        **WORDS,
    )
    assert not re.search(r"nan|inf", text)


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1e-9, 2e-9], [-3.0, 4.0], [1e6, 5e9], []])
def test_ticks_lie_in_the_axis(values):
    """Every axis has ticks inside its range, whatever the data."""
    scale = fitted(values, 0, 100, log=True)
    assert 2 <= len(scale.ticks) <= 12
    assert all(scale.low * (1 - 1e-9) <= t <= scale.high * (1 + 1e-9) for t in scale.ticks if t > 0)
    assert all(scale.low <= value <= scale.high for value in values)
