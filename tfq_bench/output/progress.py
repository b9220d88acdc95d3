"""How a run shows where it is: a live line on a terminal, one line per event elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, TextIO

from tfq_bench.foreign.text import printable

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan
    from tfq_bench.types.tasks import Outcome, Task

__all__ = ["ProgressLines", "duration"]

LIVE_SECONDS = 0.2

LEAST_SHARE = 0.02
"""Of the work, before which nothing is estimated: loading and planning take most of that time."""


class ProgressLines:
    """A `Watcher` that writes to a stream.

    The estimate is what the finished work took, scaled to the work that is left; work is counted
    in expected multiply-accumulates. There is none before a fiftieth of the work is done.

    Args:
        stream: where to; None for standard error.
    """

    def __init__(self, plan: Plan, stream: TextIO | None = None) -> None:
        self._labels = {planned.cell.key: planned.cell.label for planned in plan.cells}
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and not os.environ.get("CI")
        self._begin = time.monotonic()
        self._total = self._finished = 0.0
        self._count = self._ended = 0
        self._drawn = 0.0

    def begin(self, tasks: tuple[Task, ...], finished: int) -> None:
        """Says how much there is to do."""
        self._begin, self._finished, self._ended = time.monotonic(), 0.0, 0
        self._total = sum(task.weight for task in tasks)
        self._count = len(tasks)
        if not tasks:
            self._line(f"all {finished} tasks are finished; nothing to compute")
        elif finished:
            self._line(f"{finished} of {len(tasks) + finished} tasks are finished already")
        else:
            self._line(f"{len(tasks)} task{'s' if len(tasks) > 1 else ''} to do")

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
        where = f"{self._position(self._ended)} {self._labels[task.cell]}: {_words(task)}"
        if outcome.blocked is not None:
            cause = f"{_words(outcome.blocked)} of {self._labels[outcome.blocked.cell]}"
            self._line(f"{where} not started, because {cause} failed")
        elif outcome.reason is not None:
            self._line(f"{where} FAILED: {outcome.reason}")
        elif self._ended == self._count:
            self._line(f"{where} (took {duration(time.monotonic() - self._begin)} in all)")
        else:
            self._line(f"{where}{self._left(0.0)}")

    def close(self) -> None:
        """Takes the live line away, so that what is printed next starts a line of its own."""
        if self._live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def _position(self, number: int) -> str:
        return f"[{number:>{len(str(self._count))}}/{self._count}]"

    def _left(self, extra: float) -> str:
        done = self._finished + extra
        left = self._total - done
        if done < LEAST_SHARE * self._total or left <= 0:
            return ""
        seconds = (time.monotonic() - self._begin) * left / done
        return f" (about {duration(seconds)} left)" if seconds >= 1 else ""

    def _draw(self, task: Task, fraction: float, text: str) -> None:
        left = self._left(fraction * task.weight)
        place = f"{self._position(self._ended + 1)} {self._labels[task.cell]}"
        line = f"{place}: {text} {fraction:.0%}{left}"
        shown = printable(line)[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r\x1b[2K{shown}")
        self._stream.flush()

    def _line(self, text: str) -> None:
        text = printable(text)
        self._stream.write(f"\r\x1b[2K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()


def _words(task: Task) -> str:
    return task.stage if task.shard is None else f"{task.stage}, shard {task.shard}"


def duration(seconds: float) -> str:
    """`12 s`, `3 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
