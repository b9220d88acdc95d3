"""Charts: everything drawn lies inside, is named, and is placed by the numbers."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from tfq_bench_reports.charts.line_svg import Curve, line_chart
from tfq_bench_reports.charts.scale import fitted
from tfq_bench_reports.charts.scatter_svg import Dot, scatter_chart

WORDS = {"key": "k", "title": "A title", "description": "What it shows", "x_label": "x"}


def scatter(dots):
    """A parsed scatter chart."""
    return ET.fromstring(scatter_chart(dots, y_label="y", **WORDS).svg)


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
    kinds = ("full-precision", "simulated", "lowered", "external")
    svg = scatter([Dot(name=k, execution=k, x=i, y=i) for i, k in enumerate(kinds)])
    marks = [e.tag for e in svg.iter() if "mark" in e.get("class", "")]
    assert ["polygon", "circle", "rect", "polygon"] == marks
    diamond, triangle = (len(e.get("points").split()) for e in svg.iter("polygon"))
    assert (4, 3) == (diamond, triangle)


def test_cells_of_equal_numbers_are_one_mark_of_both_shapes():
    """A ring around a square: neither the simulated nor the lowered cell hides the other."""
    svg = scatter([Dot(name="a", execution="both", x=1, y=1)])
    marks = [e.tag for e in svg.iter() if "mark" in e.get("class", "")]
    assert ["circle", "rect"] == marks


def test_names_that_do_not_fit_become_numbers():
    """Nineteen cells in one place: every mark has a number, and the numbers lead to the names."""
    dots = [
        Dot(name=f"quantizer W{i}A8 · simulate, cpu", execution="both", x=1 + i * 1e-6, y=2)
        for i in range(18)
    ]
    dots.append(Dot(name="Full precision", execution="full-precision", x=9, y=3))
    drawn = scatter_chart(dots, y_label="y", **WORDS)
    assert tuple(dot.name for dot in dots) == drawn.numbered
    assert [str(n) for n in range(1, 20)] == labels(ET.fromstring(drawn.svg))[2:]


def test_names_that_fit_stay_in_the_chart():
    """A reader need not look a name up without need."""
    drawn = scatter_chart(
        [Dot(name=f"cell {i}", execution="lowered", x=i, y=i) for i in range(5)],
        y_label="y",
        **WORDS,
    )
    assert () == drawn.numbered
    assert [f"cell {i}" for i in range(5)] == labels(ET.fromstring(drawn.svg))[2:]


def test_colour_and_dash_of_a_line_are_set_apart():
    """Two lines of one method share a colour, two of one scheme a pattern."""
    svg = lines(
        [
            Curve(name="a", x=(1.0, 0.0), y=(0.1, 0.2), colour=3, dash=0),
            Curve(name="b", x=(1.0, 0.0), y=(0.2, 0.3), colour=3, dash=1),
        ]
    )
    assert ["line s3 d0", "line s3 d1"] == [e.get("class") for e in svg.iter("polyline")]


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
    assert scale.low >= 0 or min(values) < 0
    assert 2 <= len(scale.ticks) <= 12
    assert all(scale.low * (1 - 1e-9) <= t <= scale.high * (1 + 1e-9) for t in scale.ticks if t > 0)
    assert all(scale.low <= value <= scale.high for value in values)
