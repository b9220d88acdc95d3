"""The renderer `history` draws what the history says, without script and network."""

import re
import xml.etree.ElementTree as ET

import pytest

from tfq_bench.api import Interval, MetricDefinition, MetricValue
from tfq_bench.stats.results import Measured
from tfq_bench.trends import HistoryRun, Point, Series, Trend
from tfq_bench_reports.history import HistoryPage


def point(number, value, *, code="a"):
    """The number of a run."""
    definition = MetricDefinition(name="fd", unit="", direction="lower", summary="A distance.")
    interval = Interval(low=value - 1, high=value + 1, level=0.95, method="m")
    run = HistoryRun(
        number=number,
        suite="s",
        plan="p",
        commit=f"{number:040x}",
        edited=False,
        added="2026-11-01T00:00:00+00:00",
    )
    return Point(
        run=run,
        measured=Measured(
            metric=MetricValue(definition=definition, value=value, n=4, interval=interval),
            definition="fd@0",
            environment="e",
            hardware="h",
        ),
        key="k",
        plugins=(),
        ingredients=({"what": "quantizer 'rtn'", "code of rtn": code},),
        environment={},
    )


def series_of(points):
    """One series of the metric `fd`."""
    return Series(
        suite="s",
        label="tiny / <b>rtn</b> W4A8 / cpu",
        axes={"seed": "0"},
        metric="fd",
        definition="fd@0",
        points=points,
    )


def drawn(target):
    """The page of a series that jumps at run 4."""
    values = [(1, 100.0, "a"), (2, 100.5, "a"), (3, 100.2, "a"), (4, 130.0, "b"), (5, 130.1, "b")]
    points = tuple(point(number, value, code=code) for number, value, code in values)
    series = series_of(points)
    trend = Trend(
        outcome="drift", message="expected less", reference=points[1], limit=102.0, rule="r"
    )
    HistoryPage().render([(series, trend)], target)
    return target.read_text("utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page, as text."""
    return drawn(tmp_path_factory.mktemp("page") / "history.html")


def test_the_page_says_the_verdict_first(page):
    """The drift is named before any chart, and labels are text."""
    assert page.index("fd</a> drifted") < page.index("<svg")
    assert "<b>" not in page
    assert "&lt;b&gt;rtn" in page


def test_the_page_needs_nothing(page):
    """No script, and nothing from anywhere."""
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert "url(" not in page


def test_every_run_is_drawn_with_its_interval(page):
    """Five marks with whiskers, a diamond after the jump, and lines for reference and limit."""
    svg = ET.fromstring(re.search(r"<svg.*?</svg>", page, re.DOTALL)[0])
    kinds = [element.get("class") for element in svg]
    assert 5 == kinds.count("mark lowered")
    assert 5 == kinds.count("interval")
    assert 1 == sum(element.tag == "polygon" for element in svg)
    assert {"line s7 d1", "line s7 d2"} <= set(kinds)
    assert {"limit", "reference"} <= {element.text for element in svg}


def test_every_run_is_a_row(page):
    """Run, commit, value and what moved there stand in a table."""
    body = re.search(r"<tbody>.*?</tbody>", page, re.DOTALL)[0]
    assert 5 == body.count("<tr>")
    assert "method: quantizer &#39;rtn&#39;: code of rtn changed" in body
    assert "130.0" in body


def test_the_same_history_gives_the_same_bytes(page, tmp_path):
    """Nothing of the clock is in it."""
    assert page == drawn(tmp_path / "again.html")


def test_what_nobody_could_judge_is_no_all_clear(tmp_path):
    """One run has drifted nowhere and stayed nowhere."""
    trend = Trend(outcome="too few runs", message="1 comparable run")
    HistoryPage().render([(series_of((point(1, 100.0),)), trend)], tmp_path / "one.html")
    page = (tmp_path / "one.html").read_text("utf-8")
    assert "Nothing judged yet" in page
    assert "No drift found" not in page
    assert "<h1>1 run, 1 cell</h1>" in page
