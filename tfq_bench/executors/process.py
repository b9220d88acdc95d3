"""Runs each task in a fresh process: memory and crashes of one cell never reach another.

The process is `tfq-bench cell RUN CELL --stage S [--shard I] --outcome FD`, which is also how a
person repeats a task by hand. How it ended comes through a pipe, which needs no room on a disk. It
dies with its parent, so that a killed run leaves no orphan.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import DamagedArtefact, TfqError
from tfq_bench.executors.base import Done, Queue, Start, Work
from tfq_bench.pipeline.tasks import Outcome
from tfq_bench.store.disk import explain
from tfq_bench.store.run import RunFolder

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
        running: list[_Worker] = []
        try:
            while True:
                for outcome in queue.blocked():
                    done(outcome)
                while (
                    task := self._startable(queue, [worker.task for worker in running])
                ) is not None:
                    start(task)
                    running.append(self._spawn(task))
                if not running:
                    return
                for worker in [worker for worker in running if worker.ended()]:
                    running.remove(worker)
                    outcome = worker.outcome()
                    queue.finish(outcome)
                    done(outcome)
                time.sleep(POLL_SECONDS)
        finally:
            for worker in running:
                worker.process.kill()
            for worker in running:
                worker.process.wait()
                worker.close()

    def _startable(self, queue: Queue, running: list[Task]) -> Task | None:
        task = queue.peek()
        if task is None or len(running) >= self.slots or any(other.exclusive for other in running):
            return None
        if task.exclusive and running:
            return None  # it is next in line: nothing else starts until the slots are free
        return queue.take()

    def _spawn(self, task: Task) -> _Worker:
        log = RunFolder(self.run_folder).log_path(task.cell)
        return _Worker(task, cell_command(self.run_folder, task), log)


class _Worker:
    """A process at work on a task.

    Args:
        arguments: of `tfq-bench`.
        log: what a crash leaves is found where it is looked for.

    Raises:
        StoreError: the log cannot be written.
    """

    def __init__(self, task: Task, arguments: list[str], log: Path) -> None:
        self.task = task
        self._said = b""
        self._pipe, end = os.pipe()
        os.set_blocking(self._pipe, False)
        told = ["--outcome", str(end), "--die-with", str(os.getpid())]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stderr:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tfq_bench", *arguments, *told],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=(end,),
                )
        except OSError as error:
            self.close()
            raise explain(error, log) from error
        finally:
            os.close(end)

    def ended(self) -> bool:
        """Whether the process is gone; what it says is taken, so that it need not wait."""
        gone = self.process.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, 2**16):
                self._said += part
        return gone

    def outcome(self) -> Outcome:
        """How the process, which has ended, carried its task out.

        Raises:
            DamagedArtefact: what the task needs must be made again.
            TfqError: the run folder is damaged or full, or what is installed has changed, so that
                no other task would fare better.
        """
        self.close()
        try:
            found = json.loads(self._said)
        except ValueError:  # nothing, or a part
            return Outcome(task=self.task, reason=_lost(self.process.returncode))
        if "damaged" in found:
            raise DamagedArtefact(**found["damaged"])
        if found["fatal"]:
            raise TfqError(found["reason"])
        return Outcome(task=self.task, reason=found["reason"], metrics=found.get("metrics", {}))

    def close(self) -> None:
        """Gives the pipe back."""
        os.close(self._pipe)


def _lost(code: int) -> str:
    how = f"ended with code {code} and left no outcome"
    if code == -signal.SIGKILL:
        how = (
            f"was ended by signal {-code} (SIGKILL), which is also what the system sends when "
            "memory runs out"
        )
    elif code < 0:
        how = f"was ended by signal {-code}"
    return f"worker lost: its process {how}"
