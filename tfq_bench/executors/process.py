"""Runs each task in a fresh process: memory and crashes of one cell never reach another.

The process is `tfq-bench cell RUN CELL --stage S [--shard I] --outcome FILE`, which is also how a
person repeats a task by hand. It dies with its parent, so that a killed run leaves no orphan.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import TfqError
from tfq_bench.executors.base import Done, Queue, Start, Work
from tfq_bench.pipeline.tasks import Outcome
from tfq_bench.store.disk import explain
from tfq_bench.store.run import RunFolder
from tfq_bench.store.scratch import scratch_folder

if TYPE_CHECKING:
    from tfq_bench.pipeline.tasks import Task

__all__ = ["ProcessExecutor", "cell_command"]

POLL_SECONDS = 0.05


def cell_command(run: Path, task: Task) -> list[str]:
    """The arguments of `tfq-bench` that run one task."""
    command = ["cell", str(run), task.cell, "--stage", task.stage]
    return command if task.shard is None else [*command, "--shard", str(task.shard)]


class ProcessExecutor:
    """Fresh processes on a fixed number of slots.

    Args:
        run: the run folder; plan and suite are written in it.
        slots: tasks at the same time; an exclusive task waits for all others and runs alone.
    """

    def __init__(self, run: Path, *, slots: int) -> None:
        self.run_folder = run
        self.slots = slots

    def run(self, tasks: tuple[Task, ...], work: Work, *, start: Start, done: Done) -> None:  # noqa: ARG002
        """Runs `tasks`; see the package for the contract. `work` is not used: children run it."""
        queue = Queue(tasks)
        running: dict[subprocess.Popen[bytes], tuple[Task, Path]] = {}
        with scratch_folder() as scratch:
            try:
                while True:
                    for outcome in queue.blocked():
                        done(outcome)
                    while (
                        task := self._startable(queue, [task for task, _ in running.values()])
                    ) is not None:
                        start(task)
                        report = scratch / f"{task.id}.json"
                        running[self._spawn(task, report)] = (task, report)
                    if not running:
                        return
                    for process in [p for p in running if p.poll() is not None]:
                        task, report = running.pop(process)
                        outcome = _outcome(task, process.returncode, report)
                        queue.finish(outcome)
                        done(outcome)
                    time.sleep(POLL_SECONDS)
            finally:
                for process in running:
                    process.kill()
                for process in running:
                    process.wait()

    def _startable(self, queue: Queue, running: list[Task]) -> Task | None:
        task = queue.peek()
        if task is None or len(running) >= self.slots or any(other.exclusive for other in running):
            return None
        if task.exclusive and running:
            return None  # it is next in line: nothing else starts until the slots are free
        return queue.take()

    def _spawn(self, task: Task, report: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tfq_bench", *cell_command(self.run_folder, task)]
        log = RunFolder(self.run_folder).log_path(task.cell)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stderr:  # what a crash leaves is found where it is looked for
                return subprocess.Popen(
                    [*command, "--outcome", str(report), "--die-with", str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                )
        except OSError as error:
            raise explain(error, log) from error


def _outcome(task: Task, code: int, report: Path) -> Outcome:
    """How a child ended.

    Raises:
        TfqError: the run folder is damaged or full, or what is installed has changed, so that no
            other task would fare better.
    """
    if report.exists():
        outcome = json.loads(report.read_text("utf-8"))
        if outcome["fatal"]:
            raise TfqError(outcome["reason"])
        return Outcome(task=task, reason=outcome["reason"], metrics=outcome.get("metrics", {}))
    how = f"ended with code {code} and left no outcome"
    if code == -signal.SIGKILL:
        how = (
            f"was ended by signal {-code} (SIGKILL), which is also what the system sends when "
            "memory runs out"
        )
    elif code < 0:
        how = f"was ended by signal {-code}"
    return Outcome(task=task, reason=f"worker lost: its process {how}")
