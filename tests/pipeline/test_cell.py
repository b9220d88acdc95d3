"""One task, from artefacts to artefact: done once, and never half."""

import logging

import pytest

from tfq_bench.errors import StoreError
from tfq_bench.pipeline.cell import cell_log, run_task
from tfq_bench.pipeline.judge import FailedMetrics
from tfq_bench.pipeline.tasks import tasks_of
from tfq_bench.types.tasks import STAGES, Outcome

METRIC = """
from tfq_bench import api

class Raises:
    def evaluate(self, inputs):
        {body}

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="raises", summary="", factory=f"{{__name__}}:Raises")
"""


def perform(found, *stages):
    """Runs the tasks of these stages in order."""
    for task in tasks_of(found.plan):
        if task.stage in stages:
            run_task(found.context, task, lambda *_: None)


def test_every_stage_leaves_its_artefact(project):
    """After all tasks every key of the plan is found in the store."""
    found = project()
    perform(found, *STAGES)
    for task in tasks_of(found.plan):
        assert all(found.folder.artefacts.has(task.stage, key) for key in task.outputs), task


def test_a_finished_task_is_not_run_again(project, monkeypatch):
    """Finished work is found by its artefact, without loading a model."""
    found = project()
    perform(found, *STAGES)
    before = {path: path.stat().st_mtime_ns for path in found.folder.path.glob("artefacts/*/*")}
    assert before
    monkeypatch.setattr(found.context, "loaded", None)
    perform(found, *STAGES)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_calibration_says_what_it_cost(project):
    """One pass: T-1 calls for one batch, however many timesteps were captured."""
    found = project(steps=3)
    perform(found, "calibrate")
    task = next(task for task in tasks_of(found.plan) if task.stage == "calibrate")
    facts = found.folder.artefacts.result("calibrate", task.outputs[0])
    assert (3 - 1, 3 * 2) == (facts["network_calls"], facts["samples"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('boom')", "metric 'raises' raised ValueError: boom"),
        (
            "return [object()]",
            "must return a tuple of MetricValue, found object",
        ),
    ],
)
def test_a_metric_that_raises_keeps_no_other_from_being_computed(
    plugin_host, project, body, reason
):
    """Its reason is told when all the others are stored."""
    plugin_host.install("raises", METRIC.format(body=body))
    found = project(metrics=("raises", "bits"))
    perform(found, *STAGES[:-1])
    evaluate = next(task for task in tasks_of(found.plan) if task.stage == "evaluate")
    with pytest.raises(FailedMetrics) as caught:
        run_task(found.context, evaluate, lambda *_: None)
    assert reason in str(Outcome.of_metrics(evaluate, caught.value.reasons).reason)
    bad, good, control = evaluate.outputs
    assert not found.folder.artefacts.has("evaluate", bad)
    assert found.folder.artefacts.has("evaluate", good)
    assert found.folder.artefacts.has("evaluate", control)


def test_a_damaged_artefact_is_not_blamed_on_the_metric(project):
    """Images that changed on disk stop the run; the cell has not failed."""
    found = project(metrics=("paired",))
    perform(found, *STAGES[:-1])
    task = next(task for task in tasks_of(found.plan) if task.stage == "sample")
    file = found.folder.artefacts.path("sample", task.outputs[0]) / "images.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(StoreError, match="has changed since it was written"):
        perform(found, "evaluate")


def test_log_belongs_to_the_cell_while_it_runs(tmp_path):
    """What is logged before and after goes elsewhere; a second task appends."""
    logger, path = logging.getLogger("tfq_bench.test"), tmp_path / "logs" / "c.log"
    logger.info("before")
    for word in ("first", "second"):
        with cell_log(path):
            logger.info(word)
    logger.info("after")
    lines = path.read_text().splitlines()
    assert ["first", "second"] == [line.rpartition(": ")[2] for line in lines]


def test_log_that_cannot_be_written(tmp_path):
    """A run folder without room for a log is told in words."""
    (tmp_path / "logs").write_text("a file")
    with (
        pytest.raises(StoreError, match=r"cannot write '.*logs/c.log'"),
        cell_log(tmp_path / "logs" / "c.log"),
    ):
        pass


def test_a_disk_that_fills_up_prints_no_traceback(tmp_path, monkeypatch, capfd):
    """Logging gives up silently; the artefact that fails next says what is wrong."""
    path = tmp_path / "c.log"
    with cell_log(path):
        monkeypatch.setattr(logging.FileHandler, "flush", _full, raising=False)
        logging.getLogger("tfq_bench.test").info("lost")
        monkeypatch.undo()
    assert "" == capfd.readouterr().err


def _full(self):
    raise OSError(28, "No space left on device")
