"""What executors place: tasks, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "LOST",
    "RAISED",
    "STAGES",
    "Done",
    "Outcome",
    "Progress",
    "Stage",
    "Start",
    "Task",
    "Work",
]

Progress = Callable[[float, str], None]
"""Called with the finished fraction in [0, 1] and a short text."""

Stage = Literal["calibrate", "quantize", "lower", "sample", "measure", "evaluate"]
RAISED, LOST = "raised ", "lost its worker: "
STAGES: tuple[Stage, ...] = ("calibrate", "quantize", "lower", "sample", "measure", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work.

    Args:
        cell: key of the (first) cell it works for.
        shard: number of the index range for `sample`, else None.
        outputs: keys of the artefacts it leaves under `stage`.
        needs: ids of the tasks that must be finished before.
        exclusive: True for timings, beside which nothing else may run on the same device.
        weight: expected cost in 1e9 multiply-accumulates; for progress only.
        metrics: titles of the metrics of `evaluate`, one for each of `outputs`; else empty.
    """

    stage: Stage
    cell: str
    shard: int | None
    outputs: tuple[str, ...]
    needs: tuple[str, ...]
    weight: float
    exclusive: bool = False
    metrics: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Unique in a plan."""
        return f"{self.stage}-{self.outputs[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended.

    Args:
        reason: why it failed, None when it succeeded.
        blocked: the task whose failure, directly or not, kept this one from starting, else None.
        metrics: of an evaluation that failed in part: why, by the metric's title. All other
            metrics of the cell have their numbers.
    """

    task: Task
    reason: str | None = None
    blocked: Task | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_metrics(cls, task: Task, reasons: Mapping[str, str]) -> Outcome:
        """How an evaluation ended whose metrics failed for these reasons, by title; all when none.

        A reason that is no sentence of the metric's own begins with `RAISED` or `LOST`.
        """
        told = (
            f"metric '{title}'{'' if why.startswith((RAISED, LOST)) else ':'} {why}"
            for title, why in reasons.items()
        )
        return cls(task=task, reason="; ".join(told) or None, metrics=reasons)


Work = Callable[[Task], Outcome]
"""Runs a task in this process and never raises, except on interruption."""
Start = Callable[[Task], None]
Done = Callable[[Outcome], None]
