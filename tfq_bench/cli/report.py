"""`tfq-bench report`: one file that compares the cells of one or more runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfq_bench.errors import NothingToDo, UsageError
from tfq_bench.host import discover

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "report"
HELP = "Write a report of one or more runs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run folders, `-o` and `--renderer`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write; default: report.html in the run folder, or here for several runs",
    )
    parser.add_argument(
        "--renderer", default="html", metavar="NAME", help="which renderer writes it (html)"
    )


def execute(args: argparse.Namespace) -> int:
    """Writes the report and prints its path; NothingToDo when no run has a record."""
    from tfq_bench.store.run import RunFolder

    plugins = discover()
    provider = plugins.get("renderer", args.renderer)
    if not any(RunFolder.open(path).records() for path in args.runs):
        raise NothingToDo(
            f"nothing to report: no records in {', '.join(repr(str(path)) for path in args.runs)}. "
            "'tfq-bench run SUITE' makes them."
        )
    target = args.output or _default(args.runs, provider.suffix)
    if target.is_dir():
        raise UsageError(f"expected a file after --output, found the folder '{target}'.")
    plugins.create(provider).render(args.runs, target)
    print(target)
    return 0


def _default(runs: list[Path], suffix: str) -> Path:
    folder = runs[0] if len(runs) == 1 else Path()
    return folder / f"report{suffix}"
