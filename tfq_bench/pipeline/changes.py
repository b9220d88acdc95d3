"""Why work is done again: what the results of an earlier plan were made of, held against a new one.

A plan keeps the ingredients of its keys (`stage_keys`), so a key that moved has an ingredient that
moved, and that is the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tfq_bench.provenance.ingredients import moved, shown

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.types.tasks import Task

__all__ = ["differences", "reasons"]


def reasons(
    before: Mapping[str, Any], plan: Plan, todo: Iterable[Task], store: ArtefactStore
) -> tuple[str, ...]:
    """Sentences that say which tasks are done again and why, those of most tasks first.

    Args:
        before: content of the `plan.json` that a run folder holds.
        todo: unfinished tasks of `plan`. Those whose work was never finished have no reason to be
            told, those of cells that `before` has not are counted as new.
    """
    try:
        return _reasons(before, plan, todo, store)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ("the run was planned by a version that did not note what results are made of.",)


def differences(before: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """All that moved between two plans of one suite, in words; empty when nothing is known."""
    try:
        old = {name for cell in before["cells"] for name in _ids(cell["made_of"])}
        new = {name for cell in plan.cells for name in _ids(cell.made_of)}
        return _moved(old, new, {**before["ingredients"], **plan.ingredients})
    except (KeyError, TypeError, AttributeError):
        return ()


def _reasons(
    before: Mapping[str, Any], plan: Plan, todo: Iterable[Task], store: ArtefactStore
) -> tuple[str, ...]:
    cells = {_place(cell["axes"]): cell for cell in before["cells"]}
    planned = {one.cell.key: one for one in plan.cells}
    facts = {**before["ingredients"], **plan.ingredients}
    again: Counter[tuple[str, ...]] = Counter()
    new = 0
    for task in todo:
        cell = planned[task.cell]
        earlier = cells.get(_place(cell.axes))
        if earlier is None:
            new += 1
            continue
        old, fresh = _of_task(task, cell, earlier, facts, store)
        finished = _listed(earlier["keys"][task.stage])
        if not any(store.has(task.stage, key) for key in finished if key not in task.outputs):
            continue
        moved = _moved(old, fresh, facts)
        if task.stage in ("sample", "evaluate"):
            moved += _numbers(before["sampling"], plan.spec.sampling)
        if (earlier["reference"] is None) != (cell.reference is None):
            moved += ("the suite's full-precision cell",)
        if moved:
            again[moved] += 1
    found = [
        f"{_count(number, 'task is', 'tasks are')} done again: {'; '.join(words)}."
        for words, number in again.most_common()
    ]
    if new:
        found.append(f"{_count(new, 'task is', 'tasks are')} of cells that were not there before.")
    return tuple(found)


def _of_task(
    task: Task,
    cell: PlannedCell,
    earlier: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
    store: ArtefactStore,
) -> tuple[set[str], set[str]]:
    """Ids of what a task's results were made of, and are made of now.

    Of metrics, those count that are not finished and were there before.
    """
    if task.stage != "evaluate":
        return set(earlier["made_of"][task.stage]), set(cell.made_of[task.stage])
    names = {_called(facts[ids[-1]]): ids for ids in earlier["made_of"]["evaluate"]}
    old: set[str] = set()
    fresh: set[str] = set()
    for key, ids in zip(task.outputs, cell.made_of["evaluate"], strict=True):
        known = names.get(_called(facts[ids[-1]]))
        if known is not None and not store.has("evaluate", key):
            old |= set(known)
            fresh |= set(ids)
    return old, fresh


def _called(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    """Name and options of a metric, which a suite may have twice with others."""
    return facts["what"], *sorted((k, v) for k, v in facts.items() if k.startswith("option "))


def _moved(old: set[str], new: set[str], facts: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What differs between two sets of ingredients, each said once, in a fixed order."""
    before, after = ([facts[name] for name in sorted(ids)] for ids in (old - new, new - old))
    return tuple(sorted({one.sentence for one in moved(before, after)}))


def _numbers(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"sampling.{name} {shown(before.get(name))} -> {shown(after[name])}"
        for name in ("images", "shard")
        if before.get(name) != after[name]
    )


def _ids(made_of: Mapping[str, Any]) -> set[str]:
    return {
        name for ids in made_of.values() for one in ids for name in _listed(one) if name is not None
    }


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _place(axes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(axes.items()))


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
