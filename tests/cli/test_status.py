"""`tfq-bench status` reads a run folder and needs nothing else."""

import json

import pytest

from tfq_bench.cli import main
from tfq_bench.executors.inline import InlineExecutor
from tfq_bench.output.progress import ProgressLines
from tfq_bench.pipeline import cell
from tfq_bench.pipeline.run import execute_plan


@pytest.fixture
def status(capsys):
    """A function that returns label → (status, finished results, reason) of a run."""

    def show(run):
        capsys.readouterr()
        assert 0 == main(["status", str(run), "--json"])
        cells = json.loads(capsys.readouterr().out)["cells"]
        return {c["label"]: (c["status"], c["finished"], c["reason"]) for c in cells}

    return show


def test_from_planned_to_failed_to_finished(project, status, monkeypatch):
    """A cell is unfinished, then failed with stage and reason, then finished."""
    found = project(metrics=("bits",))
    full, other = "tiny / fp FP / eager", "tiny / rtn W8A8 / simulate"
    assert {("unfinished", 0, None)} == set(status(found.folder.path).values())

    def carry():
        execute_plan(
            found.plan,
            found.table,
            found.folder,
            InlineExecutor(found.folder.path),
            environment="e",
            watcher=ProgressLines(found.plan),
        )

    def broken(*args):
        raise ValueError("boom")

    with monkeypatch.context() as patch:
        patch.setitem(cell._STAGES, "calibrate", broken)
        carry()
    shown = status(found.folder.path)
    assert ("finished", 6, None) == shown[full]
    assert ("failed", 0, "calibrate: ValueError: boom") == shown[other]
    carry()
    assert ("finished", 7, None) == status(found.folder.path)[other]


def test_a_table_for_people(project, capsys):
    """One line per cell."""
    found = project(metrics=("bits",))
    assert 0 == main(["status", str(found.folder.path)])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert ["cell", "label", "status", "results", "reason"] == head.split()
    assert len(found.plan.cells) == len(rows)


def test_no_run(tmp_path, capsys):
    """A folder without a run is refused in one sentence."""
    assert 2 == main(["status", str(tmp_path)])
    assert "no plan.json in it" in capsys.readouterr().err
