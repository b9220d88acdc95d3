"""Who runs the tasks, and in which order, changes no record."""

import os

import pytest

from tfq_bench.executors.base import Queue
from tfq_bench.executors.inline import InlineExecutor


class Backwards(InlineExecutor):
    """Runs what was planned last as early as it may."""

    def run(self, tasks, work, *, start, done):
        """The last of the ready tasks first."""
        queue, ready = Queue(tasks), []
        while True:
            while (task := queue.take()) is not None:
                ready.append(task)
            if not ready:
                return
            ready.sort(key=tasks.index)
            start(ready[-1])
            outcome = work(ready.pop())
            queue.finish(outcome)
            done(outcome)


# One slot after the other is what tests/executors have; with torch it is of the long form.
@pytest.mark.parametrize("slots", ["1", "2"] if "TFQ_FUZZ" in os.environ else ["2"])
def test_fuzz_fresh_processes(run, facts, slots):
    """One fresh process per task, one or two at a time: the records of a run without any."""
    assert facts(run("inline")) == facts(run("apart", "--executor", "process", "--slots", slots))


def test_another_order(run, facts, monkeypatch):
    """Shards and cells from last to first: equal records, and equal images."""
    forwards = run("forwards", shard=1, sampler="ddim-stochastic", wbits=(8, 4))
    order = []
    original = Backwards.run

    def noting(self, tasks, work, *, start, done):
        def begin(task):
            order.append((task.stage, task.shard))
            start(task)

        original(self, tasks, work, start=begin, done=done)

    monkeypatch.setattr(InlineExecutor, "run", noting)
    backwards = run("backwards", shard=1, sampler="ddim-stochastic", wbits=(8, 4))
    shards = [shard for stage, shard in order if stage == "sample"]
    assert [3, 2, 1, 0] * 3 == shards
    assert facts(forwards) == facts(backwards)
    for cell in forwards.plan()["cells"]:
        assert (forwards.images(cell["key"]) == backwards.images(cell["key"])).all()


def test_threads_of_the_suite_are_not_those_of_the_machine(apart, run, facts, tmp_path):
    """What OMP_NUM_THREADS says in the shell does not reach the numbers."""
    from tfq_bench.store.run import RunFolder

    assert 0 == apart("four", env={"OMP_NUM_THREADS": "4"}).returncode
    assert facts(run("one")) == facts(RunFolder.open(tmp_path / "four"))
