"""`tfq-bench baseline save|show`: reviewed numbers that later runs are held against."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfq_bench.errors import UsageError
from tfq_bench.foreign.text import printable

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "baseline"
HELP = "Store reviewed results to compare with, or show what is stored."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `save RUN -o FILE [--force] [--allow-incomplete]` and `show FILE`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="save|show")
    save = actions.add_parser("save", help="write a run's numbers to a file for version control")
    save.add_argument("run", type=Path, metavar="RUN", help="run folder")
    save.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    save.add_argument("--force", action="store_true", help="replace FILE when it exists")
    save.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="leave out cells that failed or are not finished, and numbers that are not finite",
    )
    show = actions.add_parser("show", help="print the numbers in a file")
    show.add_argument("file", type=Path, metavar="FILE")


def execute(args: argparse.Namespace) -> int:
    """Saves or shows; 0 when it could."""
    return _save(args) if args.action == "save" else _show(args.file)


def _save(args: argparse.Namespace) -> int:
    from tfq_bench.store.baseline import baseline_of, save_baseline
    from tfq_bench.store.run import RunFolder

    if args.output.exists() and not args.force:
        raise UsageError(
            f"'{args.output}' exists. Name another file, or replace it with --force after a look "
            f"at 'tfq-bench gate {args.run} --baseline {args.output}'."
        )
    baseline = baseline_of(RunFolder.open(args.run), allow_incomplete=args.allow_incomplete)
    save_baseline(baseline, args.output)
    count = sum(len(cell.values) for cell in baseline.cells)
    print(f"Saved {count} numbers of {len(baseline.cells)} cells to {args.output}.")
    return 0


def _show(path: Path) -> int:
    from tfq_bench.output.terminal import number, table
    from tfq_bench.store.baseline import load_baseline

    baseline = load_baseline(path)
    rows = [
        (
            cell.label,
            name,
            number(measured.metric.value, measured.metric.definition.unit),
            number(measured.metric.interval.low) if measured.metric.interval else "-",
            number(measured.metric.interval.high) if measured.metric.interval else "-",
            str(measured.metric.n),
            measured.definition,
        )
        for cell in baseline.cells
        for name, measured in cell.values.items()
    ]
    print(table(("cell", "metric", "value", "low", "high", "n", "definition"), rows))
    print()
    print(printable(f"Suite '{baseline.suite}', plan {baseline.created_from}."))
    for name, environment in baseline.environments.items():
        print(printable(f"Environment {name}: {environment['description']}."))
    return 0
