"""`tfq-bench report` finds the renderer, says where it wrote, and refuses what it cannot report."""

import pytest

from tfq_bench.cli import main
from tfq_bench.store import records
from tfq_bench.store.run import RunFolder
from tfq_bench.types import MetricDefinition, MetricValue, Record

RENDERER = """
from tfq_bench.api import RendererProvider, hookimpl

class Lines:
    def render(self, runs, target):
        target.write_text("\\n".join(run.name for run in runs))

@hookimpl
def tfq_renderers():
    return [RendererProvider(name="html", summary="", factory=f"{__name__}:Lines", suffix=".txt")]
"""
VALUE = MetricValue(
    definition=MetricDefinition(name="fd", unit="", direction="lower", summary="A distance."),
    value=1.0,
    n=1,
)


@pytest.fixture
def renderer(plugin_host):
    """A renderer called `html` that writes the names of the runs."""
    plugin_host.install("lines", RENDERER)


def make_run(path, *, recorded=True):
    """A run folder with one cell, and its record if asked for."""
    cell = {"key": "c", "label": "m / fp FP / eager", "axes": {}, "status": "planned"}
    cell |= {"reason": None, "reference": None, "execution": "full-precision"}
    cell |= {"keys": {"evaluate": ["m"]}}
    plan = {"schema": 2, "id": "plan", "suite": {"name": "s"}, "shards": [], "cells": [cell]}
    run = RunFolder.prepare(path)
    run.write("", plan)
    record = Record(
        run="plan",
        cell="c",
        label="m / fp FP / eager",
        axes={},
        status="ok",
        execution="full-precision",
        environment="e",
        metric=VALUE,
        definition="fd@0",
        source="m",
        source_values=1,
    )
    records.append(run.records_path, [record] if recorded else [])
    return path


def test_report_goes_into_the_run_folder(renderer, tmp_path, capsys):
    """One run: the report lies beside its records, with the renderer's suffix."""
    run = make_run(tmp_path / "one")
    assert 0 == main(["report", str(run)])
    assert f"{run / 'report.txt'}\n" == capsys.readouterr().out
    assert "one" == (run / "report.txt").read_text()


def test_several_runs_go_into_one_file(renderer, tmp_path):
    """All runs reach the renderer in the order given."""
    runs = [str(make_run(tmp_path / name)) for name in ("b", "a")]
    target = tmp_path / "both.txt"
    assert 0 == main(["report", *runs, "-o", str(target)])
    assert "b\na" == target.read_text()


def test_run_without_records_is_nothing_to_do(renderer, tmp_path, capsys):
    """Exit code 5, and nothing is written."""
    run = make_run(tmp_path / "empty", recorded=False)
    assert 5 == main(["report", str(run)])
    assert "no records in" in capsys.readouterr().err
    assert not (run / "report.txt").exists()


def test_folder_that_is_no_run_is_refused(renderer, tmp_path, capsys):
    """Exit code 2 with what was expected."""
    assert 2 == main(["report", str(tmp_path)])
    assert "expected a run folder" in capsys.readouterr().err


def test_unknown_renderer_offers_the_nearest(renderer, tmp_path, capsys):
    """Exit code 2; the name that was meant is offered."""
    run = make_run(tmp_path / "one")
    assert 2 == main(["report", str(run), "--renderer", "htm"])
    assert "did you mean 'html'" in capsys.readouterr().err


def test_output_that_is_a_folder_is_refused(renderer, tmp_path, capsys):
    """Exit code 2 before anything is rendered."""
    run = make_run(tmp_path / "one")
    assert 2 == main(["report", str(run), "-o", str(tmp_path)])
    assert "expected a file after --output" in capsys.readouterr().err


def test_a_renderer_of_histories_writes_no_report(plugin_host, tmp_path, capsys):
    """It is not chosen by the ending, and refused by its name."""
    lines = 'RendererProvider(name="html", summary="", factory=f"{__name__}:Lines", suffix=".txt")'
    other = lines.replace('"html"', '"history"').replace(")", ', renders="history")')
    plugin_host.install("lines", RENDERER.replace(lines, f"{lines}, {other}"))
    run = str(make_run(tmp_path / "run"))
    assert 0 == main(["report", run, "-o", str(tmp_path / "out.txt")])
    assert 2 == main(["report", run, "--renderer", "history"])
    assert "expected one that draws runs" in capsys.readouterr().err
