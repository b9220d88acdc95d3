"""Runs each task in a fresh process: memory and crashes of one cell never reach another.

The process is `tfq-bench cell RUN CELL --stage S [--shard I] --outcome FD`, which is also how a
person repeats a task by hand. How it ended comes through a pipe, which needs no room on a disk. It
dies with its parent, so that a killed run leaves no orphan. Where tasks are placed on GPUs it sees
one of them, and computes as if there were no other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import DamagedArtefact, TfqError
from tfq_bench.executors.base import Queue
from tfq_bench.executors.placement import Placement
from tfq_bench.store.disk import store_error
from tfq_bench.store.run import RunFolder
from tfq_bench.types.tasks import LOST, Done, Outcome, Start, Work

if TYPE_CHECKING:
    from tfq_bench.types.tasks import Task

__all__ = ["ProcessExecutor", "cell_command"]

log = logging.getLogger("tfq_bench.executors")

POLL_SECONDS = 0.05


def cell_command(run: Path, task: Task, metric: str | None = None) -> list[str]:
    """The arguments of `tfq-bench` that run one task, or one metric of an evaluation."""
    command = ["cell", str(run), task.cell, "--stage", task.stage]
    if task.shard is not None:
        command += ["--shard", str(task.shard)]
    return command if metric is None else [*command, f"--metric={metric}"]


class ProcessExecutor:
    """Fresh processes on a fixed number of slots.

    Args:
        run: the run folder; plan and suite are written in it.
        slots: tasks at the same time.
        devices: values of `CUDA_VISIBLE_DEVICES`, each of which shows one GPU; tasks are spread
            over them. An exclusive task waits for all others on its GPU and is alone there;
            without devices it waits for all others and runs alone.
    """

    def __init__(self, run: Path, *, slots: int, devices: tuple[str, ...] = ()) -> None:
        self.run_folder = run
        self._placement = Placement(slots, devices)

    def run(self, tasks: tuple[Task, ...], work: Work, *, start: Start, done: Done) -> None:  # noqa: ARG002
        """Runs `tasks`; see the package for the contract. `work` is not used: children run it."""
        queue = Queue(tasks)
        running: list[_Worker] = []
        try:
            while True:
                for outcome in queue.blocked():
                    done(outcome)
                while (task := queue.peek()) is not None:
                    device = self._placement.place(task, [(w.task, w.device) for w in running])
                    if device is None:
                        break  # it is next in line: nothing else starts until it has room
                    queue.take()
                    start(task)
                    running.append(self._spawn(task, device))
                if not running:
                    return
                for worker in [worker for worker in running if worker.ended()]:
                    running.remove(worker)
                    outcome = worker.outcome() or self._lost(worker)
                    queue.finish(outcome)
                    done(outcome)
                time.sleep(POLL_SECONDS)
        finally:
            for worker in running:
                worker.end()

    def _spawn(self, task: Task, device: str, metric: str | None = None) -> _Worker:
        if device:
            log.info("%s of %s runs with CUDA_VISIBLE_DEVICES=%s", task.stage, task.cell, device)
        last_words = RunFolder(self.run_folder).log_path(task.cell)
        return _Worker(task, cell_command(self.run_folder, task, metric), last_words, device)

    def _lost(self, worker: _Worker) -> Outcome:
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
            finally:
                alone.end()
            outcome = alone.outcome()
            if outcome is None:
                reasons[metric] = f"{LOST}its process {alone.how_it_ended()}"
            elif outcome.reason is not None:
                reasons |= outcome.metrics or {metric: outcome.reason}
        return Outcome.of_metrics(task, reasons)


class _Worker:
    """A process at work on a task.

    Args:
        arguments: of `tfq-bench`.
        log: what a crash leaves is found where it is looked for.
        device: value of `CUDA_VISIBLE_DEVICES` that shows it one GPU; "" leaves it as it is.

    Raises:
        StoreError: the log cannot be written.
    """

    def __init__(self, task: Task, arguments: list[str], log: Path, device: str) -> None:
        self.task, self.device = task, device
        self._said = b""
        self._pipe: int | None
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
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": device} if device else None,
                )
        except OSError as error:
            self._close()
            raise store_error(error, log) from error
        finally:
            os.close(end)

    def ended(self) -> bool:
        """Whether the process is gone; what it says is taken, so that it need not wait."""
        assert self._pipe is not None
        gone = self.process.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, 2**16):
                self._said += part
        return gone

    def outcome(self) -> Outcome | None:
        """How the process, which has ended, carried its task out; None when it did not say.

        Raises:
            DamagedArtefact: what the task needs must be made again.
            TfqError: the run folder is damaged or full, or what is installed has changed, so that
                no other task would fare better.
        """
        self.end()
        try:
            found = json.loads(self._said)
        except ValueError:  # nothing, or a part
            return None
        if "damaged" in found:
            raise DamagedArtefact(**found["damaged"])
        if found["fatal"]:
            raise TfqError(found["reason"])
        return Outcome(task=self.task, reason=found["reason"], metrics=found.get("metrics", {}))

    def how_it_ended(self) -> str:
        """What the system knows of a process that said nothing."""
        code = self.process.returncode
        if code == -signal.SIGKILL:
            return (
                f"was ended by signal {-code} (SIGKILL), which is also what the system sends when "
                "memory runs out"
            )
        if code < 0:
            return f"was ended by signal {-code}"
        return f"ended with code {code} and left no outcome"

    def end(self) -> None:
        """Sees to it that the process is gone, and gives the pipe back."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
