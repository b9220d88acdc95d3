"""A plan as tasks: what an executor places, each a stage of a cell or one shard of it.

Tasks that several cells share (one calibration for all bit widths) appear once. A task is finished
when all of its artefacts exist; nothing else is remembered about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.store.artefacts import ArtefactStore

__all__ = [
    "LOST",
    "RAISED",
    "STAGES",
    "Outcome",
    "Stage",
    "Task",
    "tasks_of",
    "tasks_of_cell",
    "unfinished",
]

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
        exclusive: True for timings, beside which nothing else may run.
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


def tasks_of(plan: Plan) -> tuple[Task, ...]:
    """Every task of the plan's runnable cells, dependencies first, full precision before others."""
    tasks: dict[str, Task] = {}
    cells = sorted(plan.runnable(), key=lambda planned: planned.reference is not None)
    for planned in cells:
        for task in tasks_of_cell(plan, planned):
            tasks.setdefault(task.id, task)
    return tuple(tasks.values())


def tasks_of_cell(plan: Plan, planned: PlannedCell) -> list[Task]:
    """The tasks of one cell, dependencies first; the reference cell's are only named in needs."""
    keys, cell = planned.keys, planned.cell.key
    gmac = plan.gmac[planned.cell.model.name]
    steps = int(plan.spec.sampling["steps"])
    tasks: list[Task] = []

    def add(
        stage: Stage,
        outputs: tuple[str, ...],
        needs: tuple[str, ...],
        weight: float,
        shard: int | None = None,
        exclusive: bool = False,
        metrics: tuple[str, ...] = (),
    ) -> str:
        task = Task(
            stage=stage,
            cell=cell,
            shard=shard,
            outputs=outputs,
            needs=needs,
            weight=weight,
            exclusive=exclusive,
            metrics=metrics,
        )
        tasks.append(task)
        return task.id

    before: tuple[str, ...] = ()
    images = int(plan.spec.calibration["images"])
    if keys.calibrate is not None:
        before = (add("calibrate", (keys.calibrate,), (), gmac * images * steps),)
    before = (add("quantize", (keys.quantize,), before, gmac * images * 8),)
    lower = add("lower", (keys.lower,), before, gmac * 30)
    sampled = tuple(
        add("sample", (key,), (lower,), gmac * (stop - start) * steps, shard=number)
        for number, (key, (start, stop)) in enumerate(zip(keys.sample, plan.shards, strict=True))
    )
    measured: tuple[str, ...] = ()
    if keys.measure is not None:
        calls = int(plan.spec.timing["warmup"]) + int(plan.spec.timing["rounds"])
        weight = gmac * 2 * calls * int(plan.spec.timing["batch"])
        measured = (add("measure", (keys.measure,), (lower,), weight, exclusive=True),)
    reference: tuple[str, ...] = ()
    if planned.reference is not None:
        full = plan.find(planned.reference).keys
        reference = tuple(f"sample-{key}" for key in full.sample)
    titles = tuple(metric.title for metric in plan.metrics)
    needs = (*sampled, *measured, *reference)
    add("evaluate", keys.evaluate, needs, gmac * 40, metrics=titles)
    return tasks


def unfinished(tasks: tuple[Task, ...], store: ArtefactStore) -> tuple[Task, ...]:
    """The tasks of which an artefact is missing, in the same order."""
    return tuple(
        task for task in tasks if not all(store.has(task.stage, key) for key in task.outputs)
    )
