"""`tfq-bench cell`: the tasks of one cell of a run, in this process.

A run's worker processes are this command, and so is a failure repeated by hand.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import (
    CellError,
    DamagedArtefact,
    NothingToDo,
    StoreError,
    SuiteError,
    TfqError,
    UsageError,
    nearest,
)
from tfq_bench.host.inspection import cause, out_of_memory
from tfq_bench.host.plugins import discover
from tfq_bench.store.run import RunFolder

if TYPE_CHECKING:
    from tfq_bench.pipeline.cell_context import CellContext
    from tfq_bench.plan.plan import Plan
    from tfq_bench.types.tasks import Outcome, Task

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "cell"
HELP = (
    "Run the unfinished tasks of one cell, or one of them, in this process. "
    "'tfq-bench run' afterwards takes the results into the records."
)

PR_SET_PDEATHSIG = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run, the cell, `--stage`, `--shard` and what executors pass."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("cell", metavar="CELL", help="key of the cell, or how it begins")
    parser.add_argument(
        "--stage",
        choices=("calibrate", "quantize", "lower", "sample", "measure", "evaluate"),
        help="only this stage",
    )
    parser.add_argument("--shard", type=int, metavar="I", help="only this shard of stage sample")
    parser.add_argument("--metric", metavar="NAME", help="only this metric of stage evaluate")
    parser.add_argument("--outcome", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.add_argument("--die-with", type=int, metavar="PID", help=argparse.SUPPRESS)


def execute(args: argparse.Namespace) -> int:
    """Runs the tasks; 0 when all ended well, 3 when one failed."""
    if args.shard is not None and args.stage != "sample":
        raise UsageError("--shard needs --stage sample.")
    if args.metric is not None and args.stage != "evaluate":
        raise UsageError("--metric needs --stage evaluate.")
    if args.die_with is not None:
        _die_with(args.die_with)
    cell = _Cell(args)
    code = cell.run(args)
    if args.tasks is not None:
        with os.fdopen(args.tasks, encoding="utf-8") as tasks:
            while code == 0 and (line := tasks.readline()):
                code = cell.run(argparse.Namespace(**{**vars(args), **json.loads(line)}))
    return code


class _Cell:
    """What is planned and loaded once, however many tasks of a cell this process runs.

    Args:
        args: of the first task; of others `stage`, `shard` and `metric` may differ.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._whole = args.tasks is not None  # tasks of any stage may follow
        self._context: CellContext | None = None

    def run(self, args: argparse.Namespace) -> int:
        """Runs tasks and tells the executor, if there is one: 0 when all ended well, else 3."""
        try:
            folder = RunFolder.open(args.run)
            outcome = self._run(args, folder)
        except NothingToDo:
            if args.outcome is None:
                raise
            _report(args.outcome, None, fatal=False)  # somebody else was faster
            return 0
        except (TfqError, MemoryError, ImportError, OSError) as error:
            if out_of_memory(error):
                return _out_of_memory(args, error)
            if args.outcome is not None and isinstance(error, TfqError):
                # No other task would fare better: the folder is at fault, or another plan is made.
                stops_the_run = isinstance(error, StoreError | SuiteError)
                _report(args.outcome, str(error), fatal=stops_the_run, damaged=_damaged(error))
            raise
        if args.outcome is not None:
            _report(args.outcome, outcome.reason, fatal=False, metrics=outcome.metrics)
        if outcome.reason is None:
            return 0
        log = folder.log_path(outcome.task.cell)
        print(f"{outcome.task.stage} failed: {outcome.reason}\nlog: {log}", file=sys.stderr)
        return CellError.exit_code

    def _run(self, args: argparse.Namespace, folder: RunFolder) -> Outcome:
        from tfq_bench.pipeline.run import execute_task
        from tfq_bench.pipeline.tasks import unfinished

        context = self._planned(args, folder)
        todo = unfinished(_chosen(args, context.plan), folder.artefacts)
        if not todo:
            raise NothingToDo(
                "every task that was asked for is finished; there is nothing to repeat."
            )
        for task in todo:
            if args.outcome is None:
                print(f"{task.stage}{'' if task.shard is None else f', shard {task.shard}'}")
            outcome = execute_task(context, task, folder, lambda *_: None)
            if outcome.reason is not None:
                break
        return outcome

    def _planned(self, args: argparse.Namespace, folder: RunFolder) -> CellContext:
        from tfq_bench.pipeline.cell_context import CellContext
        from tfq_bench.pipeline.replan import plan_again

        if self._context is None:
            table = discover()
            plan = plan_again(folder, table, args.cell, None if self._whole else args.stage)
            self._context = CellContext(plan, table, folder.artefacts)
        return self._context


def _out_of_memory(args: argparse.Namespace, error: BaseException) -> int:
    """3: the worker has too little memory to plan, other tasks may need less."""
    reason = f"memory ran out before the task began: {cause(error)}."
    if args.outcome is not None:
        _report(args.outcome, reason, fatal=False)
    print(f"tfq-bench: {reason}", file=sys.stderr)
    return CellError.exit_code


def _chosen(args: argparse.Namespace, plan: Plan) -> tuple[Task, ...]:
    from tfq_bench.pipeline.tasks import tasks_of_cell

    planned = plan.find(args.cell)
    if planned.skip is not None:
        raise UsageError(f"the cell '{planned.cell.label}' is left out: {planned.skip}")
    chosen = [
        task
        for task in tasks_of_cell(plan, planned)
        if args.stage in (None, task.stage) and args.shard in (None, task.shard)
    ]
    if not chosen:
        raise UsageError(
            f"the cell '{planned.cell.label}' has no such task; it has "
            f"{len(plan.shards)} shards, from 0."
        )
    return tuple(chosen) if args.metric is None else (_one_metric(chosen[0], args.metric),)


def _one_metric(task: Task, metric: str) -> Task:
    if metric not in task.metrics:
        raise UsageError(f"unknown metric '{metric}'; {nearest(metric, task.metrics)}")
    at = task.metrics.index(metric)
    return replace(task, outputs=(task.outputs[at],), metrics=(metric,))


def _report(
    descriptor: int,
    reason: str | None,
    *,
    fatal: bool,
    metrics: Mapping[str, str] | None = None,
    damaged: Mapping[str, str] | None = None,
) -> None:
    """A line that the executor reads at the other end of a pipe."""
    more = {name: found for name, found in (("metrics", metrics), ("damaged", damaged)) if found}
    with os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as pipe:
        pipe.write(json.dumps({"reason": reason, "fatal": fatal, **more}) + "\n")


def _damaged(error: TfqError) -> dict[str, str] | None:
    """What an executor needs to have an artefact made again."""
    if not isinstance(error, DamagedArtefact):
        return None
    return {"found": error.found, "stage": error.stage, "key": error.key}


def _die_with(parent: int) -> None:
    """Asks Linux to end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise UsageError(f"the process {parent} that started this worker is gone.")
