"""What executors share: which task may start next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfq_bench.pipeline.tasks import Outcome

if TYPE_CHECKING:
    from tfq_bench.pipeline.tasks import Task

__all__ = ["Done", "Queue", "Start", "Work"]


Work = Callable[["Task"], Outcome]
"""Runs a task in this process and never raises, except on interruption."""

Start = Callable[["Task"], None]
Done = Callable[[Outcome], None]


class Queue:
    """Tasks that wait, in order, and what has become of the others."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self.waiting = list(tasks)
        self._open = {task.id for task in tasks}
        self._failed: dict[str, Outcome] = {}

    def finish(self, outcome: Outcome) -> None:
        """Takes note of how a task ended."""
        self._open.discard(outcome.task.id)
        if outcome.reason is not None:
            self._failed[outcome.task.id] = outcome

    def blocked(self) -> list[Outcome]:
        """Outcomes of waiting tasks that can never start; they leave the queue."""
        outcomes = []
        for task in list(self.waiting):
            broken = next((need for need in task.needs if need in self._failed), None)
            if broken is not None:
                self.waiting.remove(task)
                cause = self._failed[broken]
                outcome = Outcome(
                    task=task, reason=cause.reason, blocked=cause.blocked or cause.task
                )
                self.finish(outcome)
                outcomes.append(outcome)
        return outcomes

    def ready(self) -> list[Task]:
        """Waiting tasks whose needs have all finished, in order."""
        return [task for task in self.waiting if not any(need in self._open for need in task.needs)]
