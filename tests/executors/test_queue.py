"""The queue of tasks: in order, in as many steps however many there are, each told once."""

from tfq_bench.executors.base import Queue
from tfq_bench.types.tasks import Outcome, Task


def chain(number):
    """Tasks of as many cells: one calibration, and three tasks each that follow one another."""

    def task(name, *needs):
        return Task(stage="sample", cell="c", shard=0, outputs=(name,), needs=needs, weight=1.0)

    tasks = [task("first")]
    for index in range(number):
        tasks.append(task(f"{index}a", "sample-first"))
        tasks.append(task(f"{index}b", f"sample-{index}a"))
        tasks.append(task(f"{index}c", f"sample-{index}b"))
    return tuple(tasks)


class Counted(dict):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def __getitem__(self, key):
        Counted.asked += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        Counted.asked += 1
        return super().get(key, default)


def test_the_queue_does_not_slow_down():
    """16,000 tasks take as many steps each as 1,600 do, and come in order."""
    asked = []
    for number in (533, 5333):
        tasks = chain(number)
        queue = Queue(tasks)
        queue._place, queue._followers = Counted(queue._place), Counted(queue._followers)
        Counted.asked = 0
        order = []
        while (task := queue.take()) is not None:
            order.append(task)
            queue.finish(Outcome(task=task))
            assert [] == queue.blocked()
        assert list(tasks) == order
        asked.append(Counted.asked / len(tasks))
    assert asked[0] == asked[1]


def test_one_failure_blocks_all_that_follow():
    """Each is told once, with the first cause, in order."""
    tasks = chain(5000)
    queue = Queue(tasks)
    first = queue.take()
    queue.finish(Outcome(task=first, reason="boom"))
    blocked = queue.blocked()
    assert list(tasks[1:]) == [outcome.task for outcome in blocked]
    assert {("boom", "sample-first")} == {(o.reason, o.blocked.id) for o in blocked}
    assert (None, []) == (queue.take(), queue.blocked())


def test_a_task_of_a_preferred_cell_comes_first():
    """The first of any of these cells that may start; without one, the first of all."""

    def task(cell, name, *needs):
        return Task(stage="lower", cell=cell, shard=None, outputs=(name,), needs=needs, weight=1.0)

    tasks = (task("a", "1"), task("b", "2"), task("c", "3"), task("b", "4", "lower-2"))
    queue = Queue(tasks)
    assert "1" == queue.peek().outputs[0]
    assert "2" == queue.peek(["c", "b", "nowhere"]).outputs[0]
    second = queue.take(queue.peek(["b"]))
    assert "1" == queue.peek(["b"]).outputs[0]
    queue.finish(Outcome(task=second))
    assert ["4", "1", "3"] == [
        queue.take(queue.peek(cells)).outputs[0] for cells in (["b"], ["b"], [])
    ]
    assert queue.peek(["a", "b", "c"]) is None
