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


PLACED = """
import os
from tfq_bench import api
from tfq_bench.executors.process import ProcessExecutor

SEEN = api.MetricDefinition(
    name="seen", unit="", direction="lower", margin=0.1, summary="Length of what is seen."
)


class Seen:
    def evaluate(self, inputs):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        with open(f"{os.environ['TMPDIR']}/seen", "a") as file:
            file.write(f"{seen}\\n")
        return (api.MetricValue(definition=SEEN, value=1.0, n=2),)


def placed(run):
    return ProcessExecutor(run, slots=2, devices=("3", "MIG-7f"))


@api.hookimpl
def tfq_executors():
    yield api.ExecutorProvider(name="placed", summary="", factory=f"{__name__}:placed")


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="seen", summary="", factory=f"{__name__}:Seen")
"""


def test_placed_on_devices(run, facts, plugin_host, scratch, monkeypatch):
    """Workers that see one GPU each, and code that reads which: the records of a run inline."""
    plugin_host.install("placed", PLACED, distribution="placed-dist")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    more = '[[metric]]\nname = "seen"\n'
    inline = run("inline", more=more, images=2)
    apart = run("apart", "--executor", "placed", more=more, images=2)
    assert facts(inline) == facts(apart)
    assert inline.plan() == apart.plan()
    seen = (scratch / "seen").read_text().split()
    assert ["none", "none"] == seen[:2]
    assert {"3", "MIG-7f"} >= set(seen[2:])
    assert 2 == len(seen[2:])
    texts = [path.read_text() for path in apart.path.rglob("*.json*")]
    assert not any("MIG-7f" in text for text in texts)


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
