"""`tfq-bench cell` runs the tasks of one cell, as executors and people do."""

import json
import os

import pytest

from tfq_bench.cli import main
from tfq_bench.pipeline import cell as stages
from tfq_bench.store.run import RunFolder


@pytest.fixture
def planned(project):
    """A planned run of which nothing is done, and its full-precision cell's key."""
    found = project(metrics=("bits", "timing"))
    return found.folder, next(p.cell.key for p in found.plan.cells if p.reference is None)


def test_a_cell_by_the_beginning_of_its_key(planned, capsys):
    """All its stages run in order, and the store holds what they made."""
    folder, key = planned
    assert 0 == main(["cell", str(folder.path), key[:6]])
    assert ["quantize", "lower", "sample, shard 0", "sample, shard 1", "measure", "evaluate"] == (
        capsys.readouterr().out.splitlines()
    )
    assert 4 == len(folder.images(key))


def test_one_shard(planned, capsys):
    """Only the shard that was asked for is drawn."""
    folder, key = planned
    for stage in ("quantize", "lower"):
        assert 0 == main(["cell", str(folder.path), key, "--stage", stage])
    arguments = ["cell", str(folder.path), key, "--stage", "sample", "--shard", "1"]
    assert 0 == main(arguments)
    assert 1 == len(list((folder.path / "artefacts" / "sample").iterdir()))
    assert 5 == main(arguments)
    assert "nothing to repeat" in capsys.readouterr().err


def test_a_failure_is_told_with_its_log(planned, monkeypatch, capsys):
    """Exit code 3, the reason, and where more is to be read."""
    folder, key = planned

    def broken(*args):
        raise ValueError("boom")

    monkeypatch.setitem(stages._STAGES, "lower", broken)
    assert 3 == main(["cell", str(folder.path), key])
    shown = capsys.readouterr().err
    assert f"lower failed: ValueError: boom\nlog: {folder.log_path(key)}" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nocell"], "no cell starts with 'nocell'"),
        (["KEY", "--shard", "1"], "--shard needs --stage sample"),
        (["KEY", "--stage", "sample", "--shard", "2"], "it has 2 shards, from 0"),
        (["KEY", "--stage", "calibrate"], "has no such task"),
    ],
)
def test_arguments_that_name_nothing(planned, capsys, arguments, message):
    """Unknown cells, shards and stages are refused in one sentence."""
    folder, key = planned
    words = [key if word == "KEY" else word for word in arguments]
    assert 2 == main(["cell", str(folder.path), *words])
    assert message in capsys.readouterr().err


def test_no_run_folder(plugin_host, tmp_path, capsys):
    """A path without a run says how to make one."""
    assert 2 == main(["cell", str(tmp_path / "none"), "k"])
    assert "'tfq-bench run SUITE' makes one" in capsys.readouterr().err


def test_one_metric(planned, capsys):
    """Only its values are computed; an unknown one is refused with the known ones."""
    folder, key = planned
    assert 2 == main(["cell", str(folder.path), key, "--metric", "bits"])
    assert "--metric needs --stage evaluate" in capsys.readouterr().err
    assert 2 == main(["cell", str(folder.path), key, "--stage", "evaluate", "--metric", "bit"])
    assert "unknown metric 'bit'; did you mean 'bits'?" in capsys.readouterr().err
    for stage in ("quantize", "lower", "sample"):
        assert 0 == main(["cell", str(folder.path), key, "--stage", stage])
    assert 0 == main(["cell", str(folder.path), key, "--stage", "evaluate", "--metric", "bits"])
    assert 1 == len(list((folder.path / "artefacts" / "evaluate").iterdir()))


def test_what_is_installed_must_give_the_same_plan(planned, capsys):
    """An edited suite is noticed: results of two plans must not mix."""
    folder, key = planned
    suite = folder.path / "suite.toml"
    suite.write_text(suite.read_text().replace("steps = 3", "steps = 4"))
    assert 2 == main(["cell", str(folder.path), key])
    assert "'tfq-bench run' plans it anew" in capsys.readouterr().err


def outcome(planned, *arguments):
    """Exit code and what the executor would read."""
    folder, key = planned
    out, end = os.pipe()
    words = ["--outcome", str(end), "--die-with", str(os.getppid()), *arguments]
    code = main(["cell", str(folder.path), key, *words])
    os.close(end)
    with os.fdopen(out) as said:
        return code, *(json.loads(line) for line in said)


@pytest.fixture(autouse=True)
def _no_signal_of_the_parent(monkeypatch):
    """The test process must not ask to die with its own parent."""
    monkeypatch.setattr("sys.platform", "none")


def test_executors_read_the_outcome(planned, monkeypatch):
    """Success, a failed task, and a damaged folder are told apart."""
    assert (0, {"reason": None, "fatal": False}) == outcome(planned, "--stage", "quantize")
    assert (0, {"reason": None, "fatal": False}) == outcome(planned, "--stage", "quantize")

    def broken(*args):
        raise ValueError("boom")

    with monkeypatch.context() as patch:
        patch.setitem(stages._STAGES, "lower", broken)
        code, found = outcome(planned, "--stage", "lower")
    assert (3, {"reason": "ValueError: boom", "fatal": False}) == (code, found)
    (RunFolder(planned[0].path).path / "suite.toml").write_text("oops")
    code, found = outcome(planned, "--stage", "lower")
    assert (2, True) == (code, found["fatal"])


def test_further_tasks_come_through_a_pipe(planned, monkeypatch):
    """Planned and loaded once; the first failure ends it, and so does the end of the pipe."""
    from tfq_bench.pipeline import replan

    times, real = [], replan.plan_again
    monkeypatch.setattr(replan, "plan_again", lambda *args: times.append(args) or real(*args))
    well = {"reason": None, "fatal": False}
    for asked, expected in (
        (("lower", "sample"), (0, well, well, well)),
        (("oops", "measure"), (2, well, {"reason": "the cell", "fatal": False})),
    ):
        tasks, end = os.pipe()
        for stage in asked:
            os.write(end, (json.dumps({"stage": stage, "shard": None}) + "\n").encode())
        os.close(end)
        code, *said = outcome(planned, "--stage", "quantize", "--tasks", str(tasks))
        said = [{**one, "reason": one["reason"] and one["reason"][:8]} for one in said]
        assert expected == (code, *said)
    assert 2 == len(times)
    assert [None, None] == [args[3] for args in times]


def test_a_worker_without_its_parent_ends(planned, capsys):
    """A worker whose parent died before it could watch it does no work."""
    folder, key = planned
    assert 2 == main(["cell", str(folder.path), key, "--die-with", "1"])
    assert "is gone" in capsys.readouterr().err
