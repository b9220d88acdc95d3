"""`tfq-bench plan`: what a run would do, without doing any of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.cli.asked import add_suite, suite_asked
from tfq_bench.foreign.text import printable
from tfq_bench.host.plugins import discover
from tfq_bench.plan.planner import make_plan

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan
    from tfq_bench.types.tasks import Task

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "plan"
HELP = "Show the cells of a suite, what is left out and why, and what it will cost. Runs nothing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the suite, its values and cells, `--run` and `--json`."""
    add_suite(parser)
    parser.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="run folder to look for finished work in (default: runs/NAME OF THE SUITE)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def execute(args: argparse.Namespace) -> int:
    """Prints the plan."""
    from tfq_bench.pipeline.changes import reasons
    from tfq_bench.pipeline.tasks import tasks_of, unfinished
    from tfq_bench.store.run import RunFolder

    spec = suite_asked(args)
    plan = make_plan(spec, discover())
    folder = RunFolder(args.run or Path("runs") / spec.name)
    chosen = plan.chosen(args.texts)
    tasks = tasks_of(plan, chosen)
    todo = unfinished(tasks, folder.artefacts)
    before = folder.plan_before()
    why = reasons(before, plan, todo, folder.artefacts) if before else ()
    if args.json:
        print(json.dumps(_to_json(plan, tasks, todo, why), indent=2))
    else:
        print(_text(plan, chosen, tasks, todo, why))
    return 0


def _to_json(
    plan: Plan, tasks: tuple[Task, ...], todo: tuple[Task, ...], why: tuple[str, ...]
) -> dict[str, object]:
    return {
        **plan.to_json(),
        "notes": list(plan.notes),
        "changes": list(why),
        "tasks": {"all": len(tasks), "unfinished": len(todo)},
        "cost": {"gmac": _cost(tasks), "gmac_unfinished": _cost(todo)},
    }


def _text(
    plan: Plan,
    chosen: frozenset[str],
    tasks: tuple[Task, ...],
    todo: tuple[Task, ...],
    why: tuple[str, ...],
) -> str:
    from tfq_bench.output.skips import skip_lines
    from tfq_bench.output.terminal import number, table

    shares = _shares(tasks)
    rows = [
        [
            planned.cell.key,
            planned.cell.label,
            planned.execution,
            "skipped" if planned.skip else number(shares.get(planned.cell.key, 0.0) / 1e3),
        ]
        for planned in plan.cells
        if planned.cell.key in chosen
    ]
    sampling = plan.spec.sampling
    lines = [
        printable(
            f"{plan.spec.name}: {plan.spec.summary}" if plan.spec.summary else plan.spec.name
        ),
        f"{sampling['images']} images a cell, {sampling['steps']} sampler steps, "
        f"device {plan.spec.device}, {plan.spec.threads} threads, plan {plan.id}",
        "",
        table(["cell", "label", "execution", "TMAC"], rows),
        *skip_lines(plan),
        *map(printable, _excluded(plan)),
        *(printable(f"note: {note}") for note in plan.notes),
        "",
        *why,
        f"{len(tasks) - len(todo)} of {len(tasks)} tasks are finished; "
        f"{number(_cost(todo) / 1e3)} of {number(_cost(tasks) / 1e3)} TMAC to do "
        "(1e12 multiply-accumulates).",
        "Work that cells share, such as one calibration for all widths, is counted with the first.",
    ]
    return "\n".join(lines)


def _excluded(plan: Plan) -> list[str]:
    return [
        "excluded: "
        + ", ".join(f"{key} = {value}" for key, value in rule.patterns.items())
        + f": {rule.reason}"
        for rule in plan.spec.excludes
    ]


def _cost(tasks: tuple[Task, ...]) -> float:
    return sum(task.weight for task in tasks)


def _shares(tasks: tuple[Task, ...]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for task in tasks:
        shares[task.cell] = shares.get(task.cell, 0.0) + task.weight
    return shares
