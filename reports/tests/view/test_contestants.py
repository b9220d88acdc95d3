"""A tool that quantizes and executes by itself is never taken for a method."""

import re

import pytest

from tfq_bench_reports.renderer import HtmlRenderer
from tfq_bench_reports.view.reader import read_run
from tfq_bench_reports.view.verdict import verdict

NAME = "nncf W8A8 (own) · external"


@pytest.fixture(scope="module")
def tools_run(synthetic, tmp_path_factory):
    """The synthetic run with one external cell, which is closer and faster than all others."""
    tool = synthetic.Spec("c8tool", 8, "external", 0.5, quantizer="nncf")
    return synthetic.write_run(tmp_path_factory.mktemp("tools") / "run", (*synthetic.CELLS, tool))


@pytest.fixture(scope="module")
def view(tools_run):
    """Its view."""
    return read_run(tools_run)


@pytest.fixture(scope="module")
def text(tools_run, tmp_path_factory):
    """The text of its report."""
    target = tmp_path_factory.mktemp("report") / "report.html"
    HtmlRenderer().render([tools_run.path], target)
    return target.read_text("utf-8")


def test_no_tool_is_ranked_with_methods(view):
    """It has a sentence of its own, and is in no other."""
    points = {point.title: point.text for point in verdict(view)}
    own = points.pop("Tools that are no method")
    assert own.startswith(f"{NAME}: psnr")
    assert re.search(r"dB, speed \d\.\d+\S* \(", own), own
    assert "not the policy under which methods are compared" in own
    assert not any("nncf" in said for said in points.values())


def test_rows_say_whose_numbers_they_are(view):
    """Every table has the row, with its badge, and with what the tool says of itself."""
    rows = [
        row
        for table in view.models[0].tables
        for row in table.rows
        if row.name == NAME and not row.trouble
    ]
    assert {("external",)} == {row.badges for row in rows}
    expected = "layers, ranges and arithmetic are its own. Weights <have> 7 bits."
    assert {expected} == {row.note for row in rows}


def test_what_ran_stands_beside_its_tools(view):
    """Versions and settings are told with the kernels that were seen."""
    entry = next(entry for entry in view.kernels if entry.cell.name == NAME)
    assert ("engine 2026.4, compressor 3.4", "subset = 16") == (entry.tools, entry.settings)
    others = [entry for entry in view.kernels if entry.cell.name != NAME]
    assert {("", "")} == {(entry.tools, entry.settings) for entry in others}


def test_shares_are_of_the_whole_network(view):
    """What a tool leaves alone is in no list of its layers, and is told all the same."""
    entry = next(entry for entry in view.kernels if entry.cell.name == NAME)
    shares = {part.name: part.share for part in entry.shares}
    assert (
        pytest.approx({"W8A8": 9 / 20, "fallback": 0.1 / 20, "not quantized": 10.9 / 20}) == shares
    )


def test_page_explains_external(text, html):
    """The word is explained where it is used, and nowhere else."""
    assert '<span class="badge external">external</span>' in text
    assert "Compare it as a tool, not as a method." in text
    assert "external: a tool under a policy of its own" in text
    assert "Weights &lt;have&gt; 7 bits." in text
    assert "Compare it as a tool" not in html


def test_a_tool_before_it_ran_has_no_remark(synthetic, tmp_path):
    """A skipped one is a row with its reason."""
    tool = synthetic.Spec("c8", 8, "external", status="skipped", reason="pip install it")
    view = read_run(synthetic.write_run(tmp_path / "run", (synthetic.CELLS[0], tool)))
    assert ("", "pip install it") == (view.cells[1].remark, view.cells[1].trouble.reason)
