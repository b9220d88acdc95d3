"""Line charts of a run: colour by method, dash by scheme, one line for equal curves."""

import xml.etree.ElementTree as ET

import pytest

from tfq_bench_reports.charts.curves import curves
from tfq_bench_reports.view.reader import read_run


@pytest.fixture(scope="module")
def found(synthetic, tmp_path_factory):
    """Two methods at two schemes; one of them simulated and lowered."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("r8", 8, "simulate", 2.0, draw=1),
        synthetic.Spec("r8c", 8, "cpu", 2.0, draw=1),
        synthetic.Spec("r4", 4, "simulate", 20.0),
        synthetic.Spec("t8", 8, "simulate", 1.0, quantizer="tfmq"),
        synthetic.Spec("t4", 4, "simulate", 9.0, quantizer="tfmq"),
    )
    run = synthetic.write_run(tmp_path_factory.mktemp("run") / "run", cells)
    return curves(read_run(run), "r0-")


def test_legend_names_methods_and_schemes(found):
    """Colours belong to methods, patterns to schemes."""
    assert (("rtn", 0), ("tfmq", 1)) == found.methods
    assert (("W8A8", 0), ("W4A8", 1)) == found.schemes


def test_lines_follow_the_legend_in_every_chart(found):
    """A method keeps its colour, a scheme its pattern; equal curves are one line."""
    assert found.figures
    for figure in found.figures:
        drawn = [e.get("class") for e in ET.fromstring(figure.svg).iter("polyline")]
        assert ["line s0 d0", "line s0 d1", "line s1 d0", "line s1 d1"] == drawn
        assert "rtn W8A8 · simulate, cpu" == figure.header[1]
        assert 5 == len(figure.header)


def test_run_without_curves_has_no_charts(synthetic, tmp_path):
    """Full precision alone has no error to be drawn."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:1])
    assert curves(read_run(run), "r0-") is None
