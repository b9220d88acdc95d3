"""Heat maps: every value is drawn at its place in the colour of its size."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from tfq_bench_reports.charts.heatmap_svg import COLUMNS, EDGES, heat_map, level
from tfq_bench_reports.charts.heatmaps import heat_maps
from tfq_bench_reports.view.reader import read_run

WORDS = {"key": "k", "title": "A title", "description": "What it shows"}


def boxes(svg):
    """(colour, x, y, width, height) of every rectangle of a map, read from its paths."""
    found = []
    for path in ET.fromstring(svg).iter("path"):
        colour = int(re.search(r"h(\d)$", path.get("class"))[1])
        for x, y, width, height, back in re.findall(
            r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-([\d.]+)z", path.get("d")
        ):
            assert width == back
            found.append((colour, *map(float, (x, y, width, height))))
    return found


@pytest.mark.parametrize(
    ("value", "colour"),
    [(0.0, 0), (0.00099, 0), (0.001, 1), (0.02, 3), (0.9, 6), (1.0, 7), (50.0, 7), (math.inf, 7)],
)
def test_colour_of_a_value(value, colour):
    """An edge belongs to the darker side; there is a colour for everything."""
    assert colour == level(value)


def test_every_value_lies_in_its_row_and_column():
    """Rows go down, steps go right, equal neighbours are one rectangle."""
    svg = heat_map(
        [("a", (0.0, 0.0, 0.5, 2.0)), ("b", (0.02,) * 4)], (30.0, 20.0, 10.0, 0.0), **WORDS
    )
    first = sorted((box for box in boxes(svg) if box[2] == 8), key=lambda box: box[1])
    second = [box for box in boxes(svg) if box[2] != 8]
    assert [0, 6, 7] == [colour for colour, *_ in first]
    assert first[0][3] == pytest.approx(2 * first[1][3], abs=0.2)
    assert [(3, first[0][1])] == [box[:2] for box in second]
    assert second[0][3] == pytest.approx(sum(box[3] for box in first), abs=0.3)
    labels = [e.text for e in ET.fromstring(svg).iter("text")]
    assert ["a", "b", "30", "20", "0", "timestep"] == labels


def test_a_value_that_is_no_number_stays_empty():
    """A hole is a hole, not a small error."""
    svg = heat_map([("a", (math.nan, 0.5))], (1.0, 0.0), **WORDS)
    assert [6] == [colour for colour, *_ in boxes(svg)]
    assert "nan" not in svg


def test_many_steps_keep_their_worst():
    """A thousand timesteps fit, and a single bad one among them is seen."""
    curve = [0.0] * 1000
    curve[617] = 2.0
    found = boxes(heat_map([("a", curve)], tuple(range(1000, 0, -1)), **WORDS))
    assert [0, 7, 0] == [colour for colour, *_ in sorted(found, key=lambda box: box[1])]
    whole = sum(box[3] for box in found)
    bad = next(box for box in found if box[0] == 7)
    assert 1 / COLUMNS == pytest.approx(bad[3] / whole, rel=0.1)
    assert 617 / 1000 == pytest.approx((bad[1] + bad[3] / 2 - found[0][1]) / whole, abs=0.01)


def test_each_quantized_cell_has_a_map_with_blocks_in_execution_order(run):
    """The order is that of the metric's definition; cells of equal curves share a map."""
    found = heat_maps(read_run(run), "r0-")
    assert "temporal-error" == found.metric
    assert [
        "rtn W8A8 · simulate, cpu",
        "rtn W6A8 · simulate",
        "rtn W6A8 · cpu",
        "rtn W4A8 · simulate",
    ] == [figure.title for figure in found.figures]
    assert "Full precision" not in {figure.title for figure in found.figures}
    for figure in found.figures:
        assert ["down.9", "down.10", "mid", "up.0"] == [row[0] for row in figure.rows]
    assert len(EDGES) + 1 == len(found.legend)
    assert "below 0.001" == found.legend[0]


def test_table_says_where_a_block_is_worst(run):
    """W4: the last block's error rises to 2.5 x 0.22 at the last timestep."""
    found = heat_maps(read_run(run), "r0-")
    worst = next(figure for figure in found.figures if "W4A8" in figure.title)
    assert ("up.0", "0.3025", "0.55", "0") == worst.rows[-1]
    assert "largest 0.55 in up.0 at timestep 0" in worst.svg


def test_run_without_blocks_has_no_maps(synthetic, tmp_path):
    """Full precision alone has no error to be drawn."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:1])
    assert heat_maps(read_run(run), "r0-") is None
