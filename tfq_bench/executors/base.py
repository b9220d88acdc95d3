"""What executors share: which task may start next."""

from __future__ import annotations

import heapq

from tfq_bench.types.tasks import Outcome, Task

__all__ = ["Queue"]


class Queue:
    """Tasks that wait, in order; what each call costs does not grow with their number.

    Args:
        tasks: dependencies first; what they need beyond these is finished.
    """

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._tasks = tasks
        place = {task.id: number for number, task in enumerate(tasks)}
        self._place = place
        self._followers: dict[str, list[int]] = {}
        self._missing = [0] * len(tasks)
        for number, task in enumerate(tasks):
            for need in set(task.needs) & place.keys():
                self._followers.setdefault(need, []).append(number)
                self._missing[number] += 1
        # Numbers of tasks that may start: a sorted list is a heap.
        self._ready = [number for number, missing in enumerate(self._missing) if not missing]
        self._ended: set[int] = set()
        self._blocked: list[Outcome] = []

    def peek(self) -> Task | None:
        """The first waiting task whose needs have all finished; None when there is none now."""
        return self._tasks[self._ready[0]] if self._ready else None

    def take(self) -> Task | None:
        """What `peek` shows, which then waits no more."""
        return self._tasks[heapq.heappop(self._ready)] if self._ready else None

    def finish(self, outcome: Outcome) -> None:
        """Takes note of how a task ended."""
        number = self._place[outcome.task.id]
        self._ended.add(number)
        if outcome.reason is not None:
            self._block(outcome)
            return
        for follower in self._followers.get(outcome.task.id, ()):
            self._missing[follower] -= 1
            if not self._missing[follower] and follower not in self._ended:
                heapq.heappush(self._ready, follower)

    def blocked(self) -> list[Outcome]:
        """Outcomes of waiting tasks that can never start, each once."""
        found, self._blocked = self._blocked, []
        return found

    def _block(self, outcome: Outcome) -> None:
        cause = outcome.blocked or outcome.task
        numbers: set[int] = set()
        open_ids = [outcome.task.id]
        while open_ids:
            for follower in self._followers.get(open_ids.pop(), ()):
                if follower not in self._ended:
                    self._ended.add(follower)
                    numbers.add(follower)
                    open_ids.append(self._tasks[follower].id)
        self._blocked += [
            Outcome(task=self._tasks[number], reason=outcome.reason, blocked=cause)
            for number in sorted(numbers)
        ]
