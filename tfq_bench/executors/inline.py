"""Runs every task in this process, one after another: the default, and the one to debug with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfq_bench.executors.base import Queue
from tfq_bench.types.tasks import Done, Start, Work

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.types.tasks import Task

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """One slot, no processes.

    Args:
        run: the run folder; not needed here.
    """

    def __init__(self, run: Path) -> None:
        pass

    def run(self, tasks: tuple[Task, ...], work: Work, *, start: Start, done: Done) -> None:
        """Runs `tasks` in order; see the package for the contract."""
        queue = Queue(tasks)
        while True:
            for outcome in queue.blocked():
                done(outcome)
            task = queue.take()
            if task is None:
                return
            start(task)
            outcome = work(task)
            queue.finish(outcome)
            done(outcome)
