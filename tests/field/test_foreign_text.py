"""Text of plugins and files stays text at every border: terminal, annotations, JUnit, Markdown."""

import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.cli import main
from tfq_bench.foreign.text import harmless
from tfq_bench.output import markdown, terminal
from tfq_bench.output.github import error_lines
from tfq_bench.output.junit import junit
from tfq_bench.output.verdicts import to_json, to_markdown, to_text
from tfq_bench.stats.verdicts import GateResult, Verdict
from tfq_bench.testing.fuzzing import fuzz

HOSTILE = "a\n::error::forged\r\x1b[2K\x00<script>alert(1)</script>|`x`|\u202e\ud800"
HOSTILE += " [l](http://e) @all #1"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")

PLUGIN = """
from tfq_bench import api


class Breaks:
    def evaluate(self, inputs):
        raise ValueError({text!r})


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="breaks", summary="", factory=f"{{__name__}}:Breaks")
"""


def result(text):
    """A failed gate in which every text is `text`."""
    verdict = Verdict(
        outcome="failed", label=text, metric=text, fails=True, rule=text, message=text, unit=text,
        value=1.0, baseline=2.0,
    )  # fmt: skip
    return GateResult(verdicts=(verdict,), notes=(text,), compared=1)


def rows(text):
    """How many lines of a Markdown text are rows of a table."""
    return sum(line.startswith("|") for line in text.splitlines())


def check_borders(text):
    """Every output of a gate is harmless, and keeps to the form that its readers expect."""
    found = result(text)
    for shown in (to_text(found), to_markdown(found), junit(found, name=text), *error_lines(found)):
        shown.encode("utf-8")
        assert not ACTS.search(shown)
    assert all(line.startswith("::error title=") for line in error_lines(found))
    assert not any(line.lstrip().startswith("::") for line in to_text(found).splitlines())
    suite = ET.fromstring(junit(found, name=text).encode())[0]
    assert 1 == len(suite.findall("testcase/failure"))
    table = to_markdown(found)
    assert 3 == rows(table)
    assert "<" not in table
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", table.splitlines()[-1])
    assert 7 == len(cells) - 2
    json.loads(json.dumps(to_json(found)))


def test_hostile_text_acts_nowhere():
    """Not as an annotation, an escape sequence, mark-up, a row or a column."""
    check_borders(HOSTILE)
    shown = markdown.escape(HOSTILE)
    assert not re.search(r"(?<!\\)[\[\]`*_~|]", shown)
    assert "@" not in shown
    assert "http://" not in shown


@fuzz(60)
@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_fuzz_any_text_acts_nowhere(text):
    """Whatever a label, a metric, a reason or a unit is."""
    check_borders(text)
    assert 3 == len(terminal.table(("a", "b"), [(text, "x")]).splitlines())
    assert not ACTS.search(harmless(text).replace("\t", ""))


def test_a_plugins_error_is_one_line_everywhere(tiny_suite, plugin_host, tmp_path, capfd):
    """Printed by run, status, gate and baseline; recorded; nothing at the start of a line."""
    plugin_host.install("breaks", PLUGIN.format(text=HOSTILE), distribution="breaks-dist")
    run, base = str(tmp_path / "r"), str(tmp_path / "b.json")
    assert 0 == main(["run", str(tiny_suite(metrics=("paired",))), "--run", run, "--no-report"])
    assert 0 == main(["baseline", "save", run, "-o", base])
    suite = str(tiny_suite(metrics=("paired", "breaks")))
    assert 3 == main(["run", suite, "--run", run, "--no-report"])
    assert 1 == main(["gate", run, "--baseline", base, "--github", "--junit", f"{run}/j.xml"])
    assert 0 == main(["status", run])
    assert 0 == main(["status", run, "--json"])
    shown = capfd.readouterr()
    for line in (*shown.out.splitlines(), *shown.err.splitlines()):
        assert not ACTS.search(line)
        assert not line.startswith("::error::")
    assert "forged" in shown.out
    ET.parse(f"{run}/j.xml")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_no_encoding_decides_an_exit_code(tmp_path, encoding):
    """Every command writes what it can say and escapes the rest."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    missing = tmp_path / "→ \udcff"
    before, sys.stderr = sys.stderr, stream
    try:
        with redirect_stdout(stream):
            assert 2 == main(["status", str(missing)])
    finally:
        sys.stderr = before
    assert "expected a run folder" in stream.buffer.getvalue().decode(encoding)


def test_a_suite_with_odd_names_gives_a_report_of_what_it_is(tiny_suite, tmp_path, capfd):
    """Control characters in the suite's own name and summary reach no terminal."""
    suite = tiny_suite(metrics=("bits",))
    text = suite.read_text()
    name = json.dumps("tiny \u202e\u0007 ::error::")
    suite.write_text(
        text.replace('name = "tiny"\nthreads', f'name = "tiny"\nsummary = {name}\nthreads')
    )
    assert main(["plan", str(suite)]) in (0, 2)
    assert not ACTS.search(capfd.readouterr().out)
