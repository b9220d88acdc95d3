"""Runs the tasks of a cell in a process of their own: no memory and no crash reaches another cell.

A process that has carried out a task keeps what it loaded for the next one of the same cell, until
its slot is needed. A failure ends it, and what follows begins anew. Where tasks are placed on GPUs
it sees one of them, and computes as if there were no other.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.executors.base import Queue
from tfq_bench.executors.placement import Placement
from tfq_bench.executors.worker import Worker, cell_command
from tfq_bench.store.run import RunFolder
from tfq_bench.types.tasks import LOST, Done, Outcome, Start, Work

if TYPE_CHECKING:
    from tfq_bench.types.tasks import Task

__all__ = ["ProcessExecutor"]

log = logging.getLogger("tfq_bench.executors")

POLL_SECONDS = 0.05


class ProcessExecutor:
    """Processes on a fixed number of slots.

    Args:
        run: the run folder; plan and suite are written in it.
        slots: tasks at the same time, and processes.
        devices: values of `CUDA_VISIBLE_DEVICES`, each of which shows one GPU; tasks are spread
            over them. An exclusive task waits for all others on its GPU and is alone there;
            without devices it waits for all others and runs alone.
    """

    def __init__(self, run: Path, *, slots: int, devices: tuple[str, ...] = ()) -> None:
        self.run_folder = run
        self._placement = Placement(slots, devices)
        self._running: list[Worker] = []
        self._idle: list[Worker] = []

    def run(self, tasks: tuple[Task, ...], work: Work, *, start: Start, done: Done) -> None:  # noqa: ARG002
        """Runs `tasks`; see the package for the contract. `work` is not used: children run it."""
        queue = Queue(tasks)
        try:
            while True:
                for outcome in queue.blocked():
                    done(outcome)
                while (task := queue.peek(worker.task.cell for worker in self._idle)) is not None:
                    device = self._place(task)
                    if device is None:
                        break  # it is next in line: nothing else starts until it has room
                    queue.take(task)
                    start(task)
                    self._running.append(self._at_work(task, device))
                if not self._running:
                    return
                for worker in [worker for worker in self._running if worker.ended()]:
                    outcome = self._outcome(worker)
                    queue.finish(outcome)
                    done(outcome)
                time.sleep(POLL_SECONDS)
        finally:
            for worker in self._running + self._idle:
                worker.end()
            self._running, self._idle = [], []

    def _place(self, task: Task) -> str | None:
        liked = [worker.device for worker in self._idle if worker.task.cell == task.cell]
        return self._placement.place(task, [(w.task, w.device) for w in self._running], liked)

    def _at_work(self, task: Task, device: str) -> Worker:
        """The process that waits for tasks of this cell, or a new one."""
        here = [worker for worker in self._idle if worker.device == device]
        for worker in here:
            if worker.task.cell == task.cell:
                self._idle.remove(worker)
                here.remove(worker)
                if worker.give(task):
                    if task.exclusive:
                        self._dismiss(here)
                    return worker
                worker.end()
                break
        busy = sum(worker.device == device for worker in self._running)
        room = 0 if task.exclusive else self._placement.share - busy - 1
        self._dismiss(here[: max(len(here) - room, 0)])
        return self._spawn(task, device)

    def _dismiss(self, workers: list[Worker]) -> None:
        for worker in workers:
            self._idle.remove(worker)
            worker.end()

    def _spawn(self, task: Task, device: str, metric: str | None = None) -> Worker:
        if device:
            log.info("%s of %s runs with CUDA_VISIBLE_DEVICES=%s", task.stage, task.cell, device)
        last_words = RunFolder(self.run_folder).log_path(task.cell)
        return Worker(task, cell_command(self.run_folder, task, metric), last_words, device)

    def _outcome(self, worker: Worker) -> Outcome:
        """How the task at hand ended; the process is kept when it ended well."""
        self._running.remove(worker)
        try:
            outcome = worker.outcome()
        except BaseException:
            worker.end()
            raise
        if outcome is not None and outcome.reason is None and worker.process.poll() is None:
            self._idle.append(worker)
            return outcome
        worker.end()
        return self._lost(worker) if outcome is None else outcome

    def _lost(self, worker: Worker) -> Outcome:
        """How a task ended whose worker said nothing; of an evaluation each metric gets its own."""
        task, how = worker.task, worker.how_it_ended()
        if not task.metrics:
            return Outcome(task=task, reason=f"worker lost: its process {how}")
        store = RunFolder(self.run_folder).artefacts
        reasons: dict[str, str] = {}
        for metric, key in zip(task.metrics, task.outputs, strict=True):
            if store.has(task.stage, key):
                continue
            alone = self._spawn(task, worker.device, metric)
            try:
                while not alone.ended():
                    time.sleep(POLL_SECONDS)
                outcome = alone.outcome()
            finally:
                alone.end()
            if outcome is None:
                reasons[metric] = f"{LOST}its process {alone.how_it_ended()}"
            elif outcome.reason is not None:
                reasons |= outcome.metrics or {metric: outcome.reason}
        return Outcome.of_metrics(task, reasons)
