"""What becomes of the cells while their tasks end: their records."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING

from tfq_bench.pipeline.outcome import (
    failed_metric_record,
    failure_record,
    metric_records,
    skip_record,
)
from tfq_bench.pipeline.tasks import tasks_of, tasks_of_cell, unfinished
from tfq_bench.store.records import append, put_aside_damaged, read
from tfq_bench.types.tasks import Outcome

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.store.run import RunFolder
    from tfq_bench.types import Record

__all__ = ["CellRecords"]

UNKNOWN_ENVIRONMENT = "unknown"
"""Of numbers whose records were lost in a run that went on elsewhere: times do not compare."""


class CellRecords:
    """Which cells of a plan are complete or failed, and the records of that.

    Args:
        environment: id of the one that this process runs in.
        chosen: keys of the cells that count, None for all.

    Attributes:
        todo: the unfinished tasks. finished: how many others there are.
        failed: cells by key.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        environment: str,
        chosen: Collection[str] | None = None,
    ) -> None:
        everything = tasks_of(plan, chosen)
        self.todo = unfinished(everything, folder.artefacts)
        self.finished = len(everything) - len(self.todo)
        self._plan = plan
        self._folder = folder
        self._environment = environment
        self._cells = {
            planned.cell.key: planned
            for planned in plan.runnable()
            if chosen is None or planned.cell.key in chosen
        }
        self._tasks = {
            key: {task.id for task in tasks_of_cell(plan, planned)}
            for key, planned in self._cells.items()
        }
        todo = {task.id for task in self.todo}
        self._open = {key: tasks & todo for key, tasks in self._tasks.items()}
        self._waiting: dict[str, list[str]] = {}  # the cells that wait for a task
        for key, tasks in self._open.items():
            for task in tasks:
                self._waiting.setdefault(task, []).append(key)
        put_aside_damaged(folder.records_path)
        self._known: dict[str, set[bytes]] = {}
        self._measured_at: dict[bytes, str] = {}
        for record in read(folder.records_path):
            self._known.setdefault(_place(record), set()).add(_content(record))
            self._measured_at[_content(record, run="")] = record.environment
        self.failed: dict[str, PlannedCell] = {}

    def settle(self) -> None:
        """Makes sure that skipped and finished cells have their records."""
        for planned in self._plan.cells:
            if planned.skip is not None:
                self._append([skip_record(self._plan, planned, self._environment)])
            elif planned.cell.key in self._cells and not self._open[planned.cell.key]:
                self._append([self._where_it_was(record) for record in self._metrics(planned)])

    def done(self, outcome: Outcome) -> None:
        """Records what a task's end means for the cells that waited for it."""
        for key in self._waiting.pop(outcome.task.id, ()):
            planned = self._cells[key]
            self._open[key].discard(outcome.task.id)
            if outcome.reason is not None:
                self._fail(planned, outcome)
            elif not self._open[key] and key not in self.failed:
                self._append(self._metrics(planned))

    def _fail(self, planned: PlannedCell, outcome: Outcome) -> None:
        if planned.cell.key in self.failed:
            return
        self.failed[planned.cell.key] = planned
        assert outcome.reason is not None
        if outcome.metrics:
            self._append([*self._metrics(planned), *self._failed_metrics(planned, outcome)])
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
