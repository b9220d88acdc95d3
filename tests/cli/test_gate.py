"""`baseline`, `gate` and `compare` on run folders, from the command line to the exit code."""

import json
import xml.etree.ElementTree as ET

import pytest

from tfq_bench.cli import main
from tfq_bench.keys import definition_id
from tfq_bench.store.records import append
from tfq_bench.store.run import RunFolder
from tfq_bench.types import MetricDefinition, MetricValue, Record


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a run; cells are `name={metric: value}`, None for a failed cell."""

    def make(name, *, images=4, reference=None, **cells):
        plan = {"schema": 2, "id": f"plan-{name}", "suite": {"name": "s"}, "shards": []}
        plan["cells"] = []
        records = []
        for cell, values in cells.items():
            label, axes = f"tiny / {cell} / cpu", {"quantizer": cell}
            key = f"{name}-{cell}"
            common = {"cell": key, "label": label, "axes": axes, "run": plan["id"]}
            common |= {"execution": "lowered", "environment": "e"}
            plan["cells"].append(
                {"key": key, "label": label, "axes": axes, "status": "planned", "reason": None}
                | {"reference": f"{name}-{reference}" if reference not in (None, cell) else None}
                | {"execution": "lowered"}
                | {"keys": {"evaluate": [f"{key}-{metric}" for metric in values or ("fd",)]}}
            )
            for metric, value in (values or {}).items():
                definition = MetricDefinition(
                    name=metric, unit="", direction="lower", summary="", parameters={"n": images}
                )
                records.append(
                    Record(
                        **common,
                        status="ok",
                        source=f"{key}-{metric}",
                        source_values=1,
                        definition=definition_id(definition),
                        metric=MetricValue(definition=definition, value=value, n=images),
                    )
                )
            if values is None:
                records.append(Record(**common, status="failed", reason="out of memory"))
        run = RunFolder.prepare(tmp_path / name)
        run.write("", plan)
        append(run.records_path, records)
        return str(run.path)

    return make


@pytest.fixture
def baseline(make_run, tmp_path):
    """A baseline file with one cell and `fd` = 100."""
    path = str(tmp_path / "baseline.json")
    assert 0 == main(["baseline", "save", make_run("base", rtn={"fd": 100.0}), "-o", path])
    return path


@pytest.mark.parametrize(
    ("options", "cells", "code", "last"),
    [
        ({}, {"rtn": {"fd": 101.0}}, 0, "Gate passed (1 pass)."),
        ({}, {"rtn": {"fd": 110.0}}, 1, "Gate failed (1 regressed)."),
        ({}, {"rtn": None}, 1, "Gate failed (1 failed)."),
        ({}, {"rtn": {"fd": float("nan")}}, 1, "Gate failed (1 failed)."),
        ({}, {"other": {"fd": 1.0}}, 1, "Gate failed (1 missing, 1 new)."),
        ({"images": 8}, {"rtn": {"fd": 100.0}}, 4, "Gate undecided: some numbers are not compa"),
    ],
)
def test_gate_exit_codes(make_run, baseline, capsys, options, cells, code, last):
    """The last line says in words what the exit code says."""
    assert code == main(["gate", make_run("new", **options, **cells), "--baseline", baseline])
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


def test_gate_with_nothing_to_compare(make_run, baseline, tmp_path, capsys):
    """Rules that ignore everything compare nothing, which is exit code 5."""
    rules = tmp_path / "rules.toml"
    rules.write_text("schema = 1\n[[rule]]\nignore = true\n")
    run = make_run("new", rtn={"fd": 1.0})
    assert 5 == main(["gate", run, "--baseline", baseline, "--rules", str(rules)])
    assert "Gate undecided: nothing was compared" in capsys.readouterr().out


def test_gate_writes_every_format(make_run, baseline, tmp_path, capsys, monkeypatch):
    """JUnit parses, Markdown and the job summary hold the table, annotations are printed."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    run = make_run("new", rtn={"fd": 110.0})
    files = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "g.md"), "--github"]
    assert 1 == main(["gate", run, "--baseline", baseline, *files])
    assert "::error title=fd regressed::tiny / rtn / cpu: expected" in capsys.readouterr().out
    assert "1" == ET.parse(tmp_path / "j.xml").getroot()[0].get("failures")
    assert "| regressed | tiny / rtn / cpu | fd |" in (tmp_path / "g.md").read_text()
    assert (tmp_path / "g.md").read_text() == (tmp_path / "summary.md").read_text()


def test_gate_json_is_all_that_is_printed(make_run, baseline, capsys, monkeypatch):
    """Annotations go elsewhere."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    capsys.readouterr()
    run = make_run("new", rtn={"fd": 110.0})
    assert 1 == main(["gate", run, "--baseline", baseline, "--json", "--github"])
    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert (1, "regressed", 10.0) == (
        data["exit_code"],
        data["verdicts"][0]["outcome"],
        data["verdicts"][0]["difference"],
    )
    assert shown.err.startswith("::error title=fd regressed::")


def test_mistakes_are_messages(make_run, baseline, tmp_path, capsys):
    """A run, baseline or rules file that cannot be used is exit code 2."""
    run = make_run("new", rtn={"fd": 1.0})
    rules = tmp_path / "rules.toml"
    rules.write_text("schema = 1\n[[rule]]\nband = 3\n")
    for argv, message in (
        (["gate", str(tmp_path), "--baseline", baseline], "expected a run folder"),
        (["gate", run, "--baseline", str(rules)], "is not JSON"),
        (["gate", run, "--baseline", baseline, "--rules", str(rules)], "expected [low, high]"),
    ):
        assert 2 == main(argv)
        assert message in capsys.readouterr().err


def test_a_baseline_is_not_replaced_by_accident(make_run, baseline, capsys):
    """--force replaces it; a run with a failed cell needs --allow-incomplete."""
    run = make_run("new", rtn={"fd": 7.0}, other=None)
    assert 2 == main(["baseline", "save", run, "-o", baseline])
    assert "--force" in capsys.readouterr().err
    assert 2 == main(["baseline", "save", run, "-o", baseline, "--force"])
    assert "out of memory" in capsys.readouterr().err
    assert 0 == main(["baseline", "save", run, "-o", baseline, "--force", "--allow-incomplete"])
    assert 0 == main(["baseline", "show", baseline])
    assert "tiny / rtn / cpu  fd          7" in capsys.readouterr().out


def test_compare_shows_what_got_better(make_run, capsys):
    """As a table, as Markdown and as JSON."""
    a, b = make_run("a", rtn={"fd": 5.0}), make_run("b", rtn={"fd": 3.0})
    assert 0 == main(["compare", a, b])
    assert "better" == capsys.readouterr().out.splitlines()[-1].split()[-1]
    assert 0 == main(["compare", a, b, "--format", "md"])
    assert "| tiny / rtn / cpu | fd | 5 | 3 | -2 | - | - | - | better |" in capsys.readouterr().out
    assert 0 == main(["compare", b, a, "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert ("worse", 2.0) == (row["mark"], row["difference"])


def test_compare_within_a_run_is_against_full_precision(make_run, capsys):
    """One run is enough when it has full-precision cells."""
    run = make_run("a", reference="fp", fp={"fd": 4.0}, rtn={"fd": 5.0})
    assert 0 == main(["compare", run, "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert ("tiny / rtn / cpu", 4.0, 5.0) == (row["cell"], row["a"], row["b"])


def test_compare_within_a_run_with_another_cell(make_run, capsys):
    """The chosen cell is A of every row; a second run beside it is refused."""
    run = make_run("a", ours={"fd": 4.0}, rtn={"fd": 5.0})
    assert 0 == main(["compare", run, "--to", "tiny / rtn / cpu", "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert ("tiny / ours / cpu", 5.0, 4.0) == (row["cell"], row["a"], row["b"])
    assert 2 == main(["compare", run, run, "--to", "tiny / rtn / cpu"])


def test_compare_exit_codes_when_there_is_nothing_to_say(make_run, capsys):
    """5 without a common number, 4 when none of them compares."""
    a = make_run("a", rtn={"fd": 5.0})
    assert 5 == main(["compare", a])
    assert 5 == main(["compare", a, make_run("b", other={"fd": 5.0})])
    assert 4 == main(["compare", a, make_run("c", images=8, rtn={"fd": 5.0})])
    assert "n (8 and 4)" in capsys.readouterr().err
