"""What executors share: which task may start next."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

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
        # Heaps of the numbers of tasks that may start: all, and by cell. One that was taken stays
        # in them until it comes to the front.
        self._ready: list[int] = []
        self._ready_of_cell: dict[str, list[int]] = {}
        self._taken: set[int] = set()
        self._ended: set[int] = set()
        self._blocked: list[Outcome] = []
        for number, missing in enumerate(self._missing):
            if not missing:
                self._put(number)

    def peek(self, cells: Iterable[str] = ()) -> Task | None:
        """The first waiting task whose needs have all finished; None when there is none now.

        Args:
            cells: one of these is preferred.
        """
        fronts = [self._front(self._ready_of_cell.get(cell, [])) for cell in cells]
        number = min((one for one in fronts if one is not None), default=self._front(self._ready))
        return None if number is None else self._tasks[number]

    def take(self, task: Task | None = None) -> Task | None:
        """The task, or else what `peek` shows; it then waits no more."""
        task = self.peek() if task is None else task
        if task is not None:
            self._taken.add(self._place[task.id])
        return task

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
                self._put(follower)

    def blocked(self) -> list[Outcome]:
        """Outcomes of waiting tasks that can never start, each once."""
        found, self._blocked = self._blocked, []
        return found

    def _put(self, number: int) -> None:
        heapq.heappush(self._ready, number)
        heapq.heappush(self._ready_of_cell.setdefault(self._tasks[number].cell, []), number)

    def _front(self, heap: list[int]) -> int | None:
        while heap and heap[0] in self._taken:
            heapq.heappop(heap)
        return heap[0] if heap else None

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
