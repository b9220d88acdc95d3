"""A plan as tasks: what an executor places, each a stage of a cell or one shard of it.

Tasks that several cells share (one calibration for all bit widths) appear once. A task is finished
when all of its artefacts exist; nothing else is remembered about it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tfq_bench.types.tasks import Stage, Task

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.store.artefacts import ArtefactStore

__all__ = ["tasks_of", "tasks_of_cell", "unfinished"]


def tasks_of(plan: Plan, chosen: Collection[str] | None = None) -> tuple[Task, ...]:
    """Every task of the plan's runnable cells, dependencies first, full precision before others.

    Args:
        chosen: keys of the cells that count, see `Plan.chosen`; None for all.
    """
    tasks: dict[str, Task] = {}
    cells = sorted(plan.runnable(), key=lambda planned: planned.reference is not None)
    for planned in cells:
        if chosen is not None and planned.cell.key not in chosen:
            continue
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
