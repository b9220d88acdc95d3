"""Thousands of tasks: what a plan and a run do for each does not grow with their number."""

import sys
from pathlib import Path

import pytest

import tfq_bench
from tfq_bench.executors.inline import InlineExecutor
from tfq_bench.pipeline import cell_records, run
from tfq_bench.pipeline.tasks import tasks_of
from tfq_bench.plan.planner import make_plan
from tfq_bench.store.artefacts import ArtefactStore
from tfq_bench.types.tasks import Outcome

SOURCES = str(Path(tfq_bench.__file__).parent)
SHARDS = (200, 800, 2000)


class Lines:
    """Counts lines of this package that run meanwhile; a loop in one line by its turns."""

    def __enter__(self):
        self.count, self._before = 0, sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _call(self, frame, event, argument):
        return self._line if frame.f_code.co_filename.startswith(SOURCES) else None

    def _line(self, frame, event, argument):
        self.count += event == "line"
        return self._line


class Quiet:
    """Is told, and forgets."""

    def begin(self, tasks, finished):
        self.tasks = len(tasks)

    def start(self, task):
        pass

    def progress(self, task, fraction, text):
        pass

    def done(self, outcome):
        pass


@pytest.mark.parametrize("broken", [None, "lower"])
def test_work_grows_as_the_number_of_tasks(project, monkeypatch, broken):
    """200, 800 and 2,000 shards of two cells, done or kept from starting by one that failed."""
    finished = set()
    monkeypatch.setattr(ArtefactStore, "has", lambda self, stage, key: (stage, key) in finished)
    monkeypatch.setattr(cell_records, "metric_records", lambda *_: [])

    def execute_task(context, task, folder, progress):
        if task.stage == broken:
            return Outcome(task=task, reason="broken")
        finished.update((task.stage, key) for key in task.outputs)
        return Outcome(task=task)

    monkeypatch.setattr(run, "execute_task", execute_task)
    counts = []
    for shards in SHARDS:
        made = project(f"{shards}", metrics=("bits",), images=shards, shard=1)
        finished.clear()
        watcher = Quiet()
        with Lines() as lines:
            plan = make_plan(made.plan.spec, made.table)
            failed = run.execute_plan(
                plan,
                made.table,
                made.folder,
                InlineExecutor(made.folder.path),
                environment="env",
                watcher=watcher,
            )
        assert len(tasks_of(plan)) == watcher.tasks > 2 * shards
        assert bool(failed) is (broken is not None)
        counts.append(lines.count)
    few, many = ((counts[n + 1] - counts[n]) / (SHARDS[n + 1] - SHARDS[n]) for n in range(2))
    assert many < 1.02 * few, counts
