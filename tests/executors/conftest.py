"""Tasks made by hand, and an executor's life written down."""

import pytest

from tfq_bench.types.tasks import Outcome, Task


@pytest.fixture
def task():
    """A function that makes a task with id `lower-NAME`."""

    def make(name, *needs, exclusive=False):
        return Task(
            stage="lower",
            cell=name,
            shard=None,
            outputs=(name,),
            needs=tuple(f"lower-{need}" for need in needs),
            weight=1.0,
            exclusive=exclusive,
        )

    return make


@pytest.fixture
def life():
    """A function that runs tasks and returns the events ("start" or "done", name, reason)."""

    def run(executor, tasks, failing=()):
        events = []

        def work(task):
            return Outcome(task=task, reason="boom" if task.cell in failing else None)

        executor.run(
            tuple(tasks),
            work,
            start=lambda task: events.append(("start", task.cell)),
            done=lambda outcome: events.append(
                (
                    "done",
                    outcome.task.cell,
                    outcome.reason,
                    outcome.blocked and outcome.blocked.cell,
                )
            ),
        )
        return events

    return run
