"""`tfq-bench run`: carries a suite out, or goes on with it, and ends with a table and a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.cli.asked import add_suite, suite_asked
from tfq_bench.cli.placing import Placing, add_placing, placing
from tfq_bench.errors import SuiteError, TfqError, UsageError
from tfq_bench.executors.gpus import showing_only
from tfq_bench.foreign.text import printable
from tfq_bench.host.plugins import discover
from tfq_bench.host.table import PluginTable
from tfq_bench.output.rendering import renderer_called, write_report
from tfq_bench.plan.planner import make_plan
from tfq_bench.store.run import RunFolder
from tfq_bench.store.scratch import remove_abandoned_scratch

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.plan.suite import SuiteSpec
    from tfq_bench.protocols import Executor
    from tfq_bench.providers import RendererProvider

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "run"
HELP = "Run a suite. What is finished is not done again, so the same command goes on after a stop."

EXIT_FAILED_CELLS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the suite, its values and cells, who runs the tasks, and what becomes of it."""
    add_suite(parser)
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="run folder (default: runs/NAME OF THE SUITE)"
    )
    add_placing(parser)
    parser.add_argument(
        "--renderer", metavar="NAME", help="which renderer writes the report (html)"
    )
    parser.add_argument("--no-report", action="store_true", help="write no report")


def execute(args: argparse.Namespace) -> int:
    """Runs the suite; 0 when every planned cell is finished, 3 when one failed."""
    if args.no_report and args.renderer is not None:
        raise UsageError("--renderer has no effect with --no-report; leave one of the two out.")
    spec = suite_asked(args)
    table = discover()
    placed = placing(args, spec, table)
    renderer = None
    if not args.no_report:
        renderer = renderer_called(table, args.renderer or "html", renders="runs")
    with showing_only(placed.gpus):
        path = args.run or Path("runs") / spec.name
        return _run(spec, table, placed, renderer, path, args.texts)


def _run(
    spec: SuiteSpec,
    table: PluginTable,
    placed: Placing,
    renderer: RendererProvider | None,
    path: Path,
    texts: list[str],
) -> int:
    from tfq_bench.pipeline.guard.functions import unreplaced

    with unreplaced():
        plan = make_plan(spec, table)
    chosen = plan.chosen(texts)
    folder = RunFolder.prepare(path)
    with folder.lease():
        remove_abandoned_scratch()
        folder.tidy()
        for sentence in (*(f"note: {note}" for note in plan.notes), *_changes(plan, folder)):
            print(sentence)
        folder.write(spec.text, plan.to_json())
        _tell(folder)
        if placed.gpus:
            numbers = ", ".join(str(gpu.number) for gpu in placed.gpus)
            print(f"tasks on GPU {numbers} ({placed.gpus[0].model})", file=sys.stderr)
        failed = _carry_out(plan, table, folder, placed.executor(table, folder.path), chosen)
        if len(chosen) < len(plan.cells):
            print(f"-k chose {len(chosen)} of {len(plan.cells)} cells; others are as they were.")
        if renderer is not None:
            target = folder.path / f"report{renderer.suffix}"
            try:
                write_report(table, renderer, [folder.path], target)
            except TfqError as error:
                if failed:  # the exit code speaks of the cells
                    error.exit_code = EXIT_FAILED_CELLS
                raise
            print(f"\nReport: {target}")
    return EXIT_FAILED_CELLS if failed else 0


def _tell(folder: RunFolder) -> None:
    """Says what was found damaged, once."""
    while folder.notes:
        print(f"note: {printable(folder.notes.pop(0))}", file=sys.stderr)


def _changes(plan: Plan, folder: RunFolder) -> tuple[str, ...]:
    """Why finished work is done again, where the folder holds a run."""
    from tfq_bench.pipeline.changes import reasons
    from tfq_bench.pipeline.tasks import tasks_of, unfinished

    before, store = folder.plan_before(), folder.artefacts
    if before is None:
        return ()
    suite = before.get("suite")
    other = suite.get("name") if isinstance(suite, dict) else None
    told = f"note: '{folder.path}' held a run of the suite '{printable(other, 100)}'."
    why = reasons(before, plan, unfinished(tasks_of(plan), store), store)
    return why if other == plan.spec.name else (told, *why)


def _carry_out(
    plan: Plan, table: PluginTable, folder: RunFolder, executor: Executor, chosen: frozenset[str]
) -> tuple[PlannedCell, ...]:
    import torch

    from tfq_bench.output.progress import ProgressLines
    from tfq_bench.output.skips import skip_lines
    from tfq_bench.output.summary import summary
    from tfq_bench.pipeline.run import execute_plan
    from tfq_bench.provenance.environment import capture

    if plan.spec.device == "cuda" and not torch.cuda.is_available():
        raise SuiteError(
            f"suite '{plan.spec.name}' asks for device 'cuda', and torch finds no GPU here. Write "
            "'device = \"cpu\"' under [suite], or run it on a machine with a GPU."
        )
    torch.set_num_threads(plan.spec.threads)
    environment = folder.add_environment(capture(table.plugins))
    _tell(folder)
    watcher = ProgressLines(plan)
    try:
        failed = execute_plan(
            plan,
            table,
            folder,
            executor,
            environment=environment,
            watcher=watcher,
            chosen=chosen,
        )
    finally:
        watcher.close()
        _tell(folder)
    records = folder.records()
    print(summary(plan, folder.artefacts, records))
    for line in skip_lines(plan):
        print(line)
    for record in records:
        if record.status == "failed":
            what = "" if record.failed_metric is None else f", metric '{record.failed_metric}'"
            where = f"{record.label} at {record.stage}{what}"
            print(printable(f"failed: {where}: {record.reason}"))
            print(f"  log: {printable(folder.path / (record.log or ''))}")
            print(f"  repeat: {printable(record.reproduce)}")
    return failed
