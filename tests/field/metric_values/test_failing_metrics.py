"""A metric that raises, or crashes its worker, fails in words and costs its own numbers only."""

import shutil

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

from .one_bad_metric import check_only_mine_failed, source


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(0)", "raised SystemExit: 0"),
        ("import asyncio; raise asyncio.CancelledError('x')", "raised CancelledError: x"),
        ("raise ValueError('a\\n::error::b\\x1b[31m')", "ValueError: a ::error::b\\x1b[31m"),
        ("raise api.MetricError('too dark.')", "too dark."),
    ],
)
def test_whatever_a_metric_raises_is_its_own(run, body, reason):
    """Also what is no `Exception`; the cell keeps its other numbers."""
    check_only_mine_failed(*run(source(body=body)), reason)


def test_a_metric_that_fails_in_a_worker(run, tmp_path, capfd):
    """The reasons come back from a fresh process too."""
    text = source(body="raise SystemExit(3)")
    check_only_mine_failed(*run(text), "raised SystemExit: 3")
    # The failed evaluations are all that is left for workers, which start slowly.
    command = ["run", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    code = main([*command, "--executor", "process"])
    out = capfd.readouterr().out
    check_only_mine_failed(code, out, RunFolder(tmp_path / "run").records(), "raised SystemExit: 3")


def test_a_metric_that_crashes_its_worker(run, tmp_path, capfd):
    """It costs its own numbers only: what the worker did not come to is done without it."""
    crash = "import os, sys; '--outcome' in sys.argv and os.kill(os.getpid(), 11); os.oops"
    text = source(body=crash)
    check_only_mine_failed(*run(text), "raised AttributeError")
    plan = RunFolder(tmp_path / "run").plan()
    at = [metric["name"] for metric in plan["metrics"]].index("bits")
    lost = plan["cells"][-1]["keys"]["evaluate"][at]  # of one cell, for workers start slowly
    shutil.rmtree(tmp_path / "run" / "artefacts" / "evaluate" / lost)
    command = ["run", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    code = main([*command, "--executor", "process"])
    out = capfd.readouterr().out
    reason = "lost its worker: its process was ended by signal 11"
    check_only_mine_failed(code, out, RunFolder(tmp_path / "run").records(), reason)


def test_the_next_run_tries_the_metric_again_and_nothing_else(run, tmp_path, capfd):
    """Status names it meanwhile; afterwards the failure is gone."""
    flag = tmp_path / "fixed"
    body = f"import pathlib; assert pathlib.Path({str(flag)!r}).exists(), 'not yet'"
    text = source(body=body)
    check_only_mine_failed(*run(text), "raised AssertionError: not yet")
    assert 0 == main(["status", str(tmp_path / "run")])
    assert "metric 'mine': raised AssertionError: not yet" in capfd.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("artefacts/*/*")}
    flag.touch()
    assert 0 == main(
        ["run", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    )
    records = RunFolder(tmp_path / "run").records()
    assert {"ok"} == {record.status for record in records}
    assert 2 == sum(r.metric is not None and r.metric.definition.name == "score" for r in records)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("artefacts/*/*")}
    assert {p: after[p] for p in before} == before
    assert 2 == len(after) - len(before)
