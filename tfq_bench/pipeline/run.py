"""A plan is carried out: what is unfinished goes to an executor, facts become records.

Nothing is remembered but artefacts and records. The same command therefore goes on where it was
stopped, and a finished run is found finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

from tfq_bench.errors import DamagedArtefact, StoreError, TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.host.inspection import cause
from tfq_bench.pipeline.cell import cell_log, run_task
from tfq_bench.pipeline.cell_context import CellContext
from tfq_bench.pipeline.cell_records import CellRecords
from tfq_bench.pipeline.guard.settings import own_settings
from tfq_bench.pipeline.judge import FailedMetrics
from tfq_bench.pipeline.tasks import unfinished
from tfq_bench.seeds import derive
from tfq_bench.types.tasks import Outcome, Task

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.protocols import Executor
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.store.run import RunFolder
    from tfq_bench.types.tasks import Progress

__all__ = ["Watcher", "execute_plan", "execute_task"]

log = logging.getLogger("tfq_bench.run")


class Watcher(Protocol):
    """Who is told how a run goes: the terminal, usually."""

    def begin(self, tasks: tuple[Task, ...], finished: int) -> None:
        """`tasks` are to do; `finished` others were found done. Again when one had to be redone."""

    def start(self, task: Task) -> None:
        """A task starts."""

    def progress(self, task: Task, fraction: float, text: str) -> None:
        """A task in this process is at `fraction`."""

    def done(self, outcome: Outcome) -> None:
        """A task ended."""


def execute_task(
    context: CellContext, task: Task, folder: RunFolder, progress: Progress
) -> Outcome:
    """Runs one task in this process, logging to its cell's log.

    Raises:
        StoreError: the run folder itself is damaged or full; going on would not help.
    """
    with cell_log(folder.log_path(task.cell)), own_settings(derive(0, task.id)):
        try:
            run_task(context, task, progress)
        except StoreError:
            log.exception("%s", task.stage)
            raise
        except FailedMetrics as error:
            return Outcome.of_metrics(task, error.reasons)
        except BaseException as error:  # SystemExit and CancelledError of a plugin among them
            if interrupts.asked_for(error):
                raise
            log.exception("%s", task.stage)
            reason = str(error) if isinstance(error, TfqError) else _described(error)
            return Outcome(task=task, reason=f"{reason}{context.left_behind()}")
    return Outcome(task=task)


def _described(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"the memory that this process may use is full (MemoryError: {error})"
    return cause(error)


def execute_plan(
    plan: Plan,
    table: PluginTable,
    folder: RunFolder,
    executor: Executor,
    *,
    environment: str,
    watcher: Watcher,
    chosen: Collection[str] | None = None,
) -> tuple[PlannedCell, ...]:
    """Does what is unfinished of `plan` and returns the cells that failed.

    An artefact that turns out to be damaged when it is read is made again, with one of the
    folder's notes.

    Args:
        environment: id of the environment, already stored in `folder`.
        chosen: keys of the cells to run, see `Plan.chosen`; None for all.

    Raises:
        DamagedArtefact: one is damaged again after it was made again.
        TfqError: going on would not help.
    """
    removed: set[tuple[str, str]] = set()
    while True:
        try:
            cells = CellRecords(plan, folder, environment, chosen)
            watcher.begin(cells.todo, cells.finished)
            cells.settle()
            if cells.todo:
                ledger = _Ledger(cells.todo, folder.artefacts)
                _execute(executor, _worker(plan, table, folder, watcher), ledger, cells, watcher)
            return tuple(cells.failed.values())
        except DamagedArtefact as error:
            if (error.stage, error.key) in removed:
                raise
            removed.add((error.stage, error.key))
            folder.notes.append(folder.artefacts.remove(error))


def _worker(
    plan: Plan, table: PluginTable, folder: RunFolder, watcher: Watcher
) -> Callable[[Task], Outcome]:
    """What runs a task in this process; all tasks share a context."""
    context = cache(partial(CellContext, plan, table, folder.artefacts))
    return lambda task: execute_task(context(), task, folder, partial(watcher.progress, task))


def _execute(
    executor: Executor,
    worker: Callable[[Task], Outcome],
    ledger: _Ledger,
    cells: CellRecords,
    watcher: Watcher,
) -> None:
    """Has an executor run all that `ledger` expects; what it never reports has failed."""

    def work(task: Task) -> Outcome:
        return ledger.premature(task) or worker(task)

    def done(outcome: Outcome) -> None:
        entered = ledger.entered(outcome)
        if entered is not None:
            watcher.done(entered)
            cells.done(entered)

    raised = ""
    try:
        executor.run(cells.todo, work, start=watcher.start, done=done)
    except TfqError:
        raise
    except BaseException as error:
        if interrupts.asked_for(error):
            raise
        log.exception("executor")
        raised = f", and raised {printable(cause(error), 200)}"
    missing = ledger.missing()
    for task in missing:
        reason = (
            f"the executor ended with {len(missing)} of {len(cells.todo)} tasks never reported, "
            f"this one among them{raised}"
        )
        done(Outcome(task=task, reason=reason))


class _Ledger:
    """Which tasks an executor has reported; what it says and does is held against the store."""

    def __init__(self, todo: Iterable[Task], store: ArtefactStore) -> None:
        self._given = {task.id: task for task in todo}
        self._open = dict(self._given)
        self._store = store

    def premature(self, task: Task) -> Outcome | None:
        """The failure of a task that is run before what it needs is finished, else None."""
        needs = tuple(self._given[need] for need in task.needs if need in self._given)
        early = unfinished(needs, self._store)
        if not early:
            return None
        reason = f"the executor started it before {early[0].id}, which it needs, was finished"
        return Outcome(task=task, reason=reason)

    def entered(self, outcome: Outcome) -> Outcome | None:
        """The outcome to go on with; None for a task that was not given or is reported already."""
        task = self._open.pop(outcome.task.id, None)
        if task is None:
            twice = outcome.task.id in self._given
            log.warning(
                "the executor reports %s, which it %s",
                outcome.task.id,
                "reported before" if twice else "was not given",
            )
            return None
        if outcome.reason is None and unfinished((task,), self._store):
            reason = "the executor reports it as done, and its artefacts are not there"
            return Outcome(task=task, reason=reason)
        return outcome

    def missing(self) -> list[Task]:
        """The tasks that were never reported, in order."""
        return list(self._open.values())
