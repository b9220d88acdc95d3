"""A gate that cannot see does not pass: from the command line, whatever the terminal is.

Verdicts on numbers and rules one by one are in `tests/stats/test_gate.py`.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.cli import main
from tfq_bench.keys import definition_id
from tfq_bench.stats.compare import compare_runs
from tfq_bench.stats.gate import judge
from tfq_bench.stats.results import CellResults, Measured, flaw
from tfq_bench.stats.rules import BUILT_IN, Rule
from tfq_bench.store.records import append
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench.types import Interval, MetricDefinition, MetricValue, Record

PSNR = MetricValue(
    definition=MetricDefinition(
        name="psnr", unit="dB", direction="higher", summary="", margin=0.25, parameters={"n": 4}
    ),
    value=27.5,
    n=4,
    interval=Interval(low=27.0, high=28.0, level=0.95, method="bootstrap-se"),
    replicates=(27.3, 27.6, 27.5),
    pairing="p",
)


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a run of one cell with the given numbers."""

    def make(name, *values, label="tiny / rtn W4A8 / cpu", seed="0", failed=None, of=None):
        axes = {"quantizer": "rtn", "seed": seed}
        sources = ["m1", *(["m2"] if failed else [])]
        cell = {"key": "c0", "label": label, "axes": axes, "status": "planned", "reason": None}
        cell |= {"execution": "lowered", "reference": None, "keys": {"evaluate": sources}}
        plan = {"schema": 2, "id": name, "suite": {"name": "s"}, "shards": [], "cells": [cell]}
        run = RunFolder.prepare(tmp_path / name)
        run.write("", plan)
        common = {"run": name, "cell": "c0", "label": label, "axes": axes, "environment": "e"}
        common |= {"execution": "lowered"}
        found = [
            Record(
                **common,
                status="ok",
                metric=value,
                definition=None if value is None else definition_id(value.definition),
                source="m1",
                source_values=len(values) if of is None else of,
            )
            for value in values
        ]
        if failed:
            found.append(
                Record(**common, status="failed", stage="evaluate", reason=failed, source="m2",
                       failed_metric="sharp")
            )  # fmt: skip
        append(run.records_path, found)
        return str(run.path)

    return make


@pytest.fixture
def baseline(make_run, tmp_path):
    """A baseline file: PSNR 27.5 dB of one cell."""
    path = str(tmp_path / "baseline.json")
    assert 0 == main(["baseline", "save", make_run("base", PSNR), "-o", path])
    return path


def run_gate(run, baseline, *, environment, more):
    """Exit code and output of `tfq-bench gate` in a process of its own."""
    argv = [sys.executable, "-m", "tfq_bench", "gate", run, "--baseline", baseline, *more]
    surroundings = {**os.environ, **environment}
    done = subprocess.run(argv, capture_output=True, env=surroundings, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode()


@pytest.mark.parametrize(
    "value",
    [
        replace(PSNR, value=3.0, replicates=(math.nan, 3.0, 3.1)),
        replace(
            PSNR, value=3.0, interval=Interval(low=-math.inf, high=math.inf, level=0.95, method="m")
        ),
        replace(PSNR, value=3.0, replicates=(3.0, 3.0), n=1),
        replace(PSNR, value=math.nan),
        replace(PSNR, value=3.0),
    ],
    ids=["replicates", "interval", "one image", "NaN", "worse"],
)
def test_a_number_or_an_error_that_cannot_be_computed_fails(make_run, baseline, value, capsys):
    """PSNR 27.5 to 3 dB is no 'inconclusive', and no baseline is made of it."""
    run = make_run("new", value)
    assert 1 == main(["gate", run, "--baseline", baseline])
    assert "inconclusive" not in capsys.readouterr().out
    if value.replicates != PSNR.replicates or value.interval != PSNR.interval:
        assert 2 == main(["baseline", "save", run, "-o", f"{baseline}.new"])


@pytest.mark.parametrize("encoding", ["ascii", "cp1252:strict", "utf-8"])
def test_the_verdict_does_not_depend_on_the_terminal(make_run, baseline, tmp_path, encoding):
    """A failing `same` rule prints ±; labels hold what the terminal cannot say."""
    rules = tmp_path / "rules.toml"
    rules.write_text('schema = 1\n[[rule]]\nmetric = "psnr"\nsame = { atol = 0.1 }\n')
    run = make_run("new", replace(PSNR, value=27.0), label="tïny / rtn→ / \U0001f600")
    environment = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    more = ("--rules", str(rules), "--github")
    code, out, err = run_gate(run, baseline, environment=environment, more=more)
    assert (1, "") == (code, err)
    assert "regressed" in out


def test_the_verdict_does_not_need_a_terminal(make_run, baseline, tmp_path):
    """With all streams closed, as under some daemons: 1, and the files that were asked for."""
    run = make_run("new", replace(PSNR, value=3.0, replicates=(3.0, 3.1, 3.2)))
    argv = [sys.executable, "-m", "tfq_bench", "gate", run, "--baseline", baseline]
    argv += ["--junit", str(tmp_path / "junit.xml")]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], check=False)
    assert 1 == done.returncode
    assert "regressed" in (tmp_path / "junit.xml").read_text()


def test_a_misspelt_rule_is_exit_code_2_with_the_nearest_name(make_run, baseline, tmp_path, capsys):
    """The table is printed all the same."""
    rules = tmp_path / "rules.toml"
    rules.write_text('schema = 1\n[[rule]]\nmetric = "psnrr"\nat-least = 50\n')
    code = main(["gate", make_run("new", PSNR), "--baseline", baseline, "--rules", str(rules)])
    out = capsys.readouterr().out
    assert 2 == code
    assert "a rule covers nothing: metric 'psnrr'" in out
    assert "did you mean 'psnr'" in out
    assert "Gate passed" not in out


def test_a_label_with_brackets_can_be_pasted_into_a_rule(make_run, tmp_path, capsys):
    """`at-least = 50` on a cell of 27.5 dB fails."""
    label = "diffusers [source=/models/a, revision=[x]] / rtn W4A8 / cpu"
    run, path = make_run("new", PSNR, label=label), str(tmp_path / "b.json")
    assert 0 == main(["baseline", "save", run, "-o", path])
    rules = tmp_path / "rules.toml"
    rules.write_text(f"schema = 1\n[[rule]]\ncell = {json.dumps(label)}\nat-least = 50\n")
    assert 1 == main(["gate", run, "--baseline", path, "--rules", str(rules)])
    assert "at least 50" in capsys.readouterr().out


def test_other_seeds_are_told_once(make_run, baseline, capsys):
    """By the gate and by a comparison: exit code 4."""
    run = make_run("new", PSNR, seed="1")
    assert 4 == main(["gate", run, "--baseline", baseline])
    out = capsys.readouterr().out
    assert 1 == out.count("seeds differ: expected the baseline's (0), found 1")
    assert "missing" not in out
    assert 4 == main(["compare", make_run("other", PSNR), run])
    assert "seeds differ" in capsys.readouterr().err


def test_a_failed_metric_fails_and_its_name_is_told(make_run, baseline, tmp_path, capsys):
    """The other numbers are judged; no baseline is made of the rest without a word."""
    run = make_run("new", PSNR, failed="no weights")
    assert 1 == main(["gate", run, "--baseline", baseline])
    out = capsys.readouterr().out
    assert "failed: tiny / rtn W4A8 / cpu, sharp: expected the metric's numbers" in out
    assert "1 failed, 1 pass" in out
    assert 2 == main(["baseline", "save", run, "-o", str(tmp_path / "new.json")])
    assert "metric 'sharp' failed: no weights" in capsys.readouterr().err
    assert 0 == main(["status", run])
    assert "metric 'sharp': no weights" in capsys.readouterr().out


def test_a_cell_whose_metrics_give_no_number_is_finished(make_run, tmp_path, capsys):
    """`status` and `baseline save` agree: full precision in a suite with only `paired` (F7)."""
    run = make_run("new", None, of=0)
    assert 0 == main(["status", run, "--json"])
    assert "finished" == json.loads(capsys.readouterr().out)["cells"][0]["status"]
    assert 2 == main(["baseline", "save", run, "-o", str(tmp_path / "b.json")])
    assert "has no numbers to save" in capsys.readouterr().err


def test_only_paired_is_finished_for_status_and_baseline(tiny_suite, tmp_path, capsys):
    """The same with the real metric."""
    run = str(tmp_path / "r")
    assert 0 == main(["run", str(tiny_suite(metrics=("paired",))), "--run", run, "--no-report"])
    capsys.readouterr()
    assert 0 == main(["status", run, "--json"])
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert ["finished", "finished"] == [cell["status"] for cell in cells]
    assert 0 == main(["baseline", "save", run, "-o", str(tmp_path / "b.json")])
    assert 0 == main(["gate", run, "--baseline", str(tmp_path / "b.json")])


def test_a_comparison_of_other_definitions_is_exit_code_4(make_run, capsys):
    """What compares is printed; nothing that varies is called worse without an interval."""
    seconds = MetricDefinition(
        name="calibration-seconds", unit="s", direction="lower", summary="", volatile=True
    )
    other = replace(PSNR, definition=replace(PSNR.definition, parameters={"n": 8}))
    a = make_run("a", PSNR, MetricValue(definition=seconds, value=1.0, n=1))
    b = make_run("b", other, MetricValue(definition=seconds, value=9.0, n=1))
    assert 4 == main(["compare", a, b])
    shown = capsys.readouterr()
    assert "numbers of different definitions do not compare" in shown.err
    assert "worse" not in shown.out
    assert "not comparable" in shown.out
    same = make_run("c", PSNR, MetricValue(definition=seconds, value=9.0, n=1))
    assert 0 == main(["compare", a, same]), "times of unknown hardware do not decide"
    assert "worse" not in capsys.readouterr().out


FLOATS = st.floats() | st.sampled_from([27.5, 27.4, 0.0, 1e308, -1e308, math.nan, math.inf])
NUMBERS = st.builds(
    replace,
    st.just(PSNR),
    value=FLOATS,
    n=st.integers(0, 5),
    interval=st.none()
    | st.builds(replace, st.just(PSNR.interval), low=FLOATS, high=FLOATS, level=st.just(0.95)),
    replicates=st.lists(FLOATS, max_size=4).map(tuple),
    pairing=st.none() | st.just("p"),
)
RULES = st.sampled_from(
    [
        (),
        (Rule(kind="no-worse-ratio", numbers=(1.02,)),),
        (Rule(kind="same", numbers=(0.1, 0.1)),),
        (Rule(kind="at-least", numbers=(0.0,)),),
        (Rule(kind="no-worse-margin", numbers=(1e300,)),),
    ]
)


@fuzz(150)
@given(run=NUMBERS, base=NUMBERS, rules=RULES, direction=st.sampled_from(["higher", "lower"]))
def test_fuzz_a_pass_rests_on_finite_numbers_and_errors(run, base, rules, direction):
    """Whatever a number, its interval and its replicates are, it is judged or it fails."""
    first, second = (
        CellResults(
            key="k",
            label="c",
            axes={},
            status="ok",
            values={
                "psnr": Measured(
                    metric=replace(v, definition=replace(v.definition, direction=direction)),
                    definition="d",
                    environment="e",
                    hardware=None,
                )
            },
        )
        for v in (run, base)
    )
    result = judge([first], [second], (*BUILT_IN, *rules))
    assert result.exit_code in (0, 1)
    if result.exit_code == 0:
        assert flaw(run) is None
        assert (rules and rules[0].kind == "at-least") or flaw(base) is None
    (row,) = compare_runs([second], [first])
    if row.mark in ("better", "worse", "equal", "no difference shown"):
        assert math.isfinite(row.delta.low)
        assert math.isfinite(row.delta.high)
