"""How a run shows where it is: a live line on a terminal, one line per event elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tfq_bench.executors.base import Outcome
    from tfq_bench.pipeline.tasks import Task
    from tfq_bench.plan import Plan

__all__ = ["ProgressLines", "duration"]

LIVE_SECONDS = 0.2


class ProgressLines:
    """A `Watcher` that writes to a stream.

    The estimate is what the finished work took, scaled to the work that is left; work is counted
    in expected multiply-accumulates.
    """

    def __init__(self, plan: Plan, stream: TextIO = sys.stderr) -> None:
        self._labels = {planned.cell.key: planned.cell.label for planned in plan.cells}
        self._stream = stream
        self._live = stream.isatty() and not os.environ.get("CI")
        self._begin = time.monotonic()
        self._total = self._finished = 0.0
        self._count = self._ended = 0
        self._drawn = 0.0

    def begin(self, tasks: tuple[Task, ...], finished: int) -> None:
        """Says how much there is to do."""
        self._total = sum(task.weight for task in tasks)
        self._count = len(tasks)
        if finished:
            self._line(f"{finished} tasks found finished, {len(tasks)} to do")
        else:
            self._line(f"{len(tasks)} tasks to do")

    def start(self, task: Task) -> None:
        """Shows which task runs now."""
        if self._live:
            self._draw(task, 0.0, task.stage)

    def progress(self, task: Task, fraction: float, text: str) -> None:
        """Redraws the live line now and then."""
        now = time.monotonic()
        if self._live and now - self._drawn >= LIVE_SECONDS:
            self._drawn = now
            self._draw(task, fraction, text)

    def done(self, outcome: Outcome) -> None:
        """One line per ended task, with the estimate of what is left."""
        task = outcome.task
        self._ended += 1
        self._finished += task.weight
        what = f"{task.stage} of {self._labels[task.cell]}"
        if task.shard is not None:
            what += f", shard {task.shard}"
        if outcome.blocked is not None:
            self._line(f"not started: {what}, because {outcome.blocked} failed")
        elif outcome.reason is not None:
            self._line(f"FAILED {what}: {outcome.reason}")
        else:
            self._line(f"[{self._ended}/{self._count}] {what}{self._left(0.0)}")

    def _left(self, extra: float) -> str:
        done = self._finished + extra
        left = self._total - done
        if done <= 0 or left <= 0:
            return ""
        return f" (about {duration((time.monotonic() - self._begin) * left / done)} left)"

    def _draw(self, task: Task, fraction: float, text: str) -> None:
        left = self._left(fraction * task.weight)
        line = f"[{self._ended}/{self._count}] {self._labels[task.cell]}: {text} {fraction:.0%}"
        self._stream.write(f"\r\x1b[2K{line}{left}")
        self._stream.flush()

    def _line(self, text: str) -> None:
        self._stream.write(f"\r\x1b[2K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """`12 s`, `3 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
