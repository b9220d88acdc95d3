"""A plan is carried out: what is unfinished goes to an executor, facts become records.

Nothing is remembered but artefacts and records. The same command therefore goes on where it was
stopped, and a finished run is found finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from tfq_bench import interrupts
from tfq_bench.errors import CellError, DamagedArtefact, StoreError, TfqError
from tfq_bench.foreign import printable
from tfq_bench.inspection import cause
from tfq_bench.pipeline.cell import cell_log, run_task
from tfq_bench.pipeline.judge import FailedMetrics
from tfq_bench.pipeline.outcome import (
    failed_metric_record,
    failure_record,
    metric_records,
    skip_record,
)
from tfq_bench.pipeline.settings import own_settings
from tfq_bench.pipeline.tasks import Outcome, Task, tasks_of, tasks_of_cell, unfinished
from tfq_bench.pipeline.workbench import Workbench
from tfq_bench.seeds import derive
from tfq_bench.store.records import append, put_aside_damaged, read

if TYPE_CHECKING:
    from tfq_bench.border import Record
    from tfq_bench.host import PluginTable
    from tfq_bench.plan import Plan, PlannedCell
    from tfq_bench.protocols import Executor, Progress
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.store.run import RunFolder

__all__ = ["Watcher", "carry_out", "perform"]

log = logging.getLogger("tfq_bench.run")

UNKNOWN_ENVIRONMENT = "unknown"
"""Of numbers whose records were lost in a run that went on elsewhere: times do not compare."""


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


def perform(bench: Workbench, task: Task, folder: RunFolder, progress: Progress) -> Outcome:
    """Runs one task in this process, logging to its cell's log.

    Raises:
        StoreError: the run folder itself is damaged or full; going on would not help.
    """
    with cell_log(folder.log_path(task.cell)), own_settings(derive(0, task.id)):
        try:
            run_task(bench, task, progress)
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
            return Outcome(task=task, reason=f"{reason}{_left_behind(bench)}")
    return Outcome(task=task)


def _described(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"the memory that this process may use is full (MemoryError: {error})"
    return cause(error)


def _left_behind(bench: Workbench) -> str:
    """What to add to a failure that also changed the model, which is then loaded again."""
    try:
        bench.check_models()
    except CellError as error:
        return f" Before that, {error}"
    return ""


def carry_out(
    plan: Plan,
    table: PluginTable,
    folder: RunFolder,
    executor: Executor,
    *,
    environment: str,
    watcher: Watcher,
) -> tuple[PlannedCell, ...]:
    """Does what is unfinished of `plan` and returns the cells that failed.

    An artefact that turns out to be damaged when it is read is made again, with one of the
    folder's notes.

    Args:
        environment: id of the environment, already stored in `folder`.

    Raises:
        DamagedArtefact: one is damaged again after it was made again.
        TfqError: going on would not help.
    """
    removed: set[tuple[str, str]] = set()
    while True:
        try:
            return _attempt(plan, table, folder, executor, environment, watcher)
        except DamagedArtefact as error:
            if (error.stage, error.key) in removed:
                raise
            removed.add((error.stage, error.key))
            folder.notes.append(folder.artefacts.remove(error))


def _attempt(
    plan: Plan,
    table: PluginTable,
    folder: RunFolder,
    executor: Executor,
    environment: str,
    watcher: Watcher,
) -> tuple[PlannedCell, ...]:
    store = folder.artefacts
    tasks = tasks_of(plan)
    todo = unfinished(tasks, store)
    watcher.begin(todo, len(tasks) - len(todo))
    run = _Run(plan, table, folder, environment, {task.id for task in todo})
    benches: list[Workbench] = []

    by_id = {task.id: task for task in todo}

    def work(task: Task) -> Outcome:
        needs = tuple(by_id[need] for need in task.needs if need in by_id)
        if early := unfinished(needs, store):
            reason = f"the executor started it before {early[0].id}, which it needs, was finished"
            return Outcome(task=task, reason=reason)
        if not benches:
            benches.append(Workbench(plan, table, store))
        return perform(
            benches[0], task, folder, lambda fraction, text: watcher.progress(task, fraction, text)
        )

    def start(task: Task) -> None:
        run.start(task)
        watcher.start(task)

    def done(outcome: Outcome) -> None:
        entered = ledger.entered(outcome)
        if entered is not None:
            watcher.done(entered)
            run.done(entered)

    ledger = _Ledger(todo, store)
    run.settle(plan.cells)
    if todo:
        reason = ""
        try:
            executor.run(todo, work, start=start, done=done)
        except TfqError:
            raise
        except BaseException as error:
            if interrupts.asked_for(error):
                raise
            log.exception("executor")
            reason = f", and raised {printable(cause(error), 200)}"
        missing = ledger.missing()
        for task in missing:
            done(
                Outcome(
                    task=task,
                    reason=f"the executor ended with {len(missing)} of {len(todo)} tasks never "
                    f"reported, this one among them{reason}",
                )
            )
    return tuple(run.failed.values())


class _Ledger:
    """Which tasks an executor has reported; what it says is held against the store."""

    def __init__(self, todo: Iterable[Task], store: ArtefactStore) -> None:
        self._open = {task.id: task for task in todo}
        self._known = set(self._open)
        self._store = store

    def entered(self, outcome: Outcome) -> Outcome | None:
        """The outcome to go on with; None for a task that was not given or is reported already."""
        task = self._open.pop(outcome.task.id, None)
        if task is None:
            twice = outcome.task.id in self._known
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


class _Run:
    """Which cells are complete, and their records."""

    def __init__(
        self,
        plan: Plan,
        table: PluginTable,
        folder: RunFolder,
        environment: str,
        todo: set[str],
    ) -> None:
        self._plan = plan
        self._table = table
        self._folder = folder
        self._environment = environment
        self._cells = {planned.cell.key: planned for planned in plan.runnable()}
        self._tasks = {
            key: {task.id for task in tasks_of_cell(plan, planned)}
            for key, planned in self._cells.items()
        }
        self._open = {key: tasks & todo for key, tasks in self._tasks.items()}
        self._waiting: dict[str, list[str]] = {}  # the cells that wait for a task
        for key, tasks in self._open.items():
            for task in tasks:
                self._waiting.setdefault(task, []).append(key)
        self._started: set[str] = set()
        put_aside_damaged(folder.records_path)
        self._known: dict[str, set[bytes]] = {}
        self._measured_at: dict[bytes, str] = {}
        for record in read(folder.records_path):
            self._known.setdefault(_place(record), set()).add(_content(record))
            self._measured_at[_content(record, run="")] = record.environment
        self.failed: dict[str, PlannedCell] = {}

    def settle(self, cells: Iterable[PlannedCell]) -> None:
        """Makes sure that skipped and finished cells have their records."""
        for planned in cells:
            if planned.skip is not None:
                self._append([skip_record(self._plan, planned, self._environment)])
            elif not self._open[planned.cell.key]:
                self._append([self._where_it_was(record) for record in self._metrics(planned)])

    def start(self, task: Task) -> None:
        for key in self._waiting.get(task.id, ()):
            if key not in self._started:
                self._started.add(key)
                self._table.notify("tfq_cell_started", cell=self._cells[key].cell)

    def done(self, outcome: Outcome) -> None:
        for key in self._waiting.pop(outcome.task.id, ()):
            planned = self._cells[key]
            self._open[key].discard(outcome.task.id)
            if outcome.reason is not None:
                self._fail(planned, outcome)
            elif not self._open[key] and key not in self.failed:
                records = self._metrics(planned)
                self._append(records)
                self._table.notify("tfq_cell_finished", cell=planned.cell, records=records)

    def _fail(self, planned: PlannedCell, outcome: Outcome) -> None:
        if planned.cell.key in self.failed:
            return
        self.failed[planned.cell.key] = planned
        assert outcome.reason is not None
        if outcome.metrics:
            self._append([*self._metrics(planned), *self._failed_metrics(planned, outcome)])
            self._table.notify("tfq_cell_failed", cell=planned.cell, reason=outcome.reason)
            return
        cause = outcome.blocked or outcome.task  # of another cell when work is shared
        reason, repeat = outcome.reason, planned.cell.key
        if cause.id not in self._tasks[planned.cell.key]:
            label, repeat = self._plan.find(cause.cell).cell.label, cause.cell
            reason = f"it needs '{label}', which failed at {cause.stage}: {reason}"
        record = failure_record(
            self._plan,
            planned,
            self._environment,
            stage=cause.stage,
            reason=reason,
            **self._traces(cause.cell, repeat),
        )
        self._append([*self._metrics(planned), record])
        self._table.notify("tfq_cell_failed", cell=planned.cell, reason=outcome.reason)

    def _failed_metrics(self, planned: PlannedCell, outcome: Outcome) -> list[Record]:
        """A record for each metric without numbers; it is tried again by the next run."""
        return [
            failed_metric_record(
                self._plan,
                planned,
                self._environment,
                metric=metric.title,
                source=key,
                reason=outcome.metrics[metric.title],
                **self._traces(planned.cell.key, planned.cell.key),
            )
            for metric, key in zip(self._plan.metrics, planned.keys.evaluate, strict=True)
            if metric.title in outcome.metrics
        ]

    def _traces(self, logged: str, repeat: str) -> dict[str, str]:
        """How a failure is repeated, and where its log is."""
        log_path = self._folder.log_path(logged).relative_to(self._folder.path)
        return {
            "reproduce": f"tfq-bench cell {shlex.quote(str(self._folder.path))} {repeat}",
            "log": log_path.as_posix(),
        }

    def _metrics(self, planned: PlannedCell) -> list[Record]:
        return metric_records(self._plan, planned, self._folder.artefacts, self._environment)

    def _where_it_was(self, record: Record) -> Record:
        """The record of a number found finished, with the place where it was measured.

        Another plan's record of it says so. Without one it was here, unless the run was elsewhere.
        """
        where = self._measured_at.get(_content(record, run=""))
        if where is None:
            here = set(self._folder.environments()) <= {self._environment}
            where = self._environment if here else UNKNOWN_ENVIRONMENT
        return dataclasses.replace(record, environment=where)

    def _append(self, records: list[Record]) -> None:
        """Appends what is not there yet; where it ran first is what stays on record."""
        fresh = []
        for record in records:
            known = self._known.setdefault(_place(record), set())
            if _content(record) not in known:
                fresh.append(record)
                known.add(_content(record))
                if record.status == "ok":  # it takes a failure of its cell off the record
                    self._known.pop(f"{record.cell} not ok", None)
        append(self._folder.records_path, fresh)


def _place(record: Record) -> str:
    return f"{record.cell} {'ok' if record.status == 'ok' else 'not ok'}"


def _content(record: Record, **changes: str) -> bytes:
    """What a record says, wherever it was measured; equal ones need not be written twice."""
    said = dataclasses.replace(record, environment="", **changes)  # type: ignore[arg-type]
    return hashlib.sha256(repr(said).encode("utf-8", "backslashreplace")).digest()
