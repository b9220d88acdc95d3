"""A process that runs tasks of one cell in turn, and says through a pipe how each ended.

The process is `tfq-bench cell RUN CELL --stage S [--shard I] --outcome FD --tasks FD`; without the
descriptors that is how a person repeats a task by hand. What it says needs no room on a disk. More
tasks come as lines of JSON through a second pipe; when that ends, so does the process. It dies with
its parent, so that a killed run leaves no orphan.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import DamagedArtefact, TfqError
from tfq_bench.store.disk import store_error
from tfq_bench.types.tasks import Outcome

if TYPE_CHECKING:
    from tfq_bench.types.tasks import Task

__all__ = ["Worker", "cell_command"]


def cell_command(run: Path, task: Task, metric: str | None = None) -> list[str]:
    """The arguments of `tfq-bench` that run one task, or one metric of an evaluation."""
    command = ["cell", str(run), task.cell, "--stage", task.stage]
    if task.shard is not None:
        command += ["--shard", str(task.shard)]
    return command if metric is None else [*command, f"--metric={metric}"]


class Worker:
    """A process at work on a task, or waiting for another one of the same cell.

    Args:
        task: the first one.
        arguments: of `tfq-bench`, for it.
        log: what a crash leaves is found where it is looked for.
        device: value of `CUDA_VISIBLE_DEVICES` that shows it one GPU; "" leaves it as it is.

    Attributes:
        task: the one at hand, or the last one.

    Raises:
        StoreError: the log cannot be written.
    """

    def __init__(self, task: Task, arguments: list[str], log: Path, device: str) -> None:
        self.task, self.device = task, device
        self._said = b""
        self._out, theirs = os.pipe()
        tasks, self._tasks = os.pipe()
        os.set_blocking(self._out, False)
        told = ["--outcome", str(theirs), "--tasks", str(tasks), "--die-with", str(os.getpid())]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stderr:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tfq_bench", *arguments, *told],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=(theirs, tasks),
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": device} if device else None,
                )
        except OSError as error:
            self._close()
            raise store_error(error, log) from error
        finally:
            os.close(theirs)
            os.close(tasks)

    def give(self, task: Task) -> bool:
        """Hands another task of the cell to a process that waits; whether it was there."""
        told = json.dumps({"stage": task.stage, "shard": task.shard}) + "\n"
        try:
            os.write(self._tasks, told.encode())
        except OSError:
            return False
        self.task, self._said = task, b""
        return self.process.poll() is None

    def ended(self) -> bool:
        """Whether the task has ended; what the process says is taken, so that it need not wait."""
        gone = self.process.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._out, 2**16):
                self._said += part
        return gone or self._said.endswith(b"\n")

    def outcome(self) -> Outcome | None:
        """How the process carried its task out, which has ended; None when it did not say.

        Raises:
            DamagedArtefact: what the task needs must be made again.
            TfqError: the run folder is damaged or full, or what is installed has changed, so that
                no other task would fare better.
        """
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
        """What the system knows of a process that is gone and said nothing."""
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
        """Sees to it that the process is gone, and gives the pipes back."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._out, self._tasks):
            if pipe >= 0:
                os.close(pipe)
        self._out = self._tasks = -1
