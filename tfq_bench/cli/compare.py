"""`tfq-bench compare`: differences of two runs, or of a run's cells to one of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import NotComparable, NothingToDo, UsageError
from tfq_bench.foreign.text import printable

if TYPE_CHECKING:
    from tfq_bench.stats.compare import Comparison
    from tfq_bench.stats.results import CellResults

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "compare"
HELP = (
    "Compare two runs, or with one run its cells with full precision or with another cell. Cells "
    "of two runs are matched by their place in the grid; differences are B - A with 95 % "
    "intervals, paired where the images pair."
)

_HEADERS = ("cell", "metric", "A", "B", "difference", "low", "high", "pairing", "mark")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one or two runs, the cell to compare with, and the format."""
    parser.add_argument("a", type=Path, metavar="A", help="run folder")
    parser.add_argument(
        "b",
        type=Path,
        metavar="B",
        nargs="?",
        help="another; without it, A's cells (as B) are compared with its full-precision cells",
    )
    parser.add_argument(
        "--to",
        metavar="CELL",
        help="compare A's cells (as B) with this one of them: its label, or how its key begins",
    )
    parser.add_argument("--format", choices=("table", "md", "json"), default="table")


def execute(args: argparse.Namespace) -> int:
    """Prints the comparison.

    Raises:
        UsageError: `--to` with two runs, or it names no cell.
        NothingToDo: there is no metric in both.
        NotComparable: nothing of what both have can be compared, or not all of it that is no time
            or peak of memory; what does compare is printed.
    """
    from tfq_bench.stats.arithmetic import arithmetic_notes, pairs_of
    from tfq_bench.stats.compare import compare_runs, compare_with_cell, compare_with_reference
    from tfq_bench.stats.results import find_cell, seeds_of
    from tfq_bench.store.baseline import run_facts
    from tfq_bench.store.run import RunFolder

    if args.to is not None and args.b is not None:
        raise UsageError("--to names a cell of the only run; leave one of the two out.")
    first = run_facts(RunFolder.open(args.a))
    second: tuple[CellResults, ...] = ()
    if args.to is not None:
        one = find_cell(first, args.to)
        rows = compare_with_cell(first, one)
        if not rows:
            raise NothingToDo(f"no cell in '{args.a}' shares a metric with '{one.label}'.")
    elif args.b is None:
        rows = compare_with_reference(first)
        if not rows:
            raise NothingToDo(f"no cell in '{args.a}' shares a metric with full precision.")
    else:
        second = run_facts(RunFolder.open(args.b))
        rows = compare_runs(first, second)
        if not any(row.a is not None and row.b is not None for row in rows):
            places = [{cell.identity_but_seed for cell in cells} for cells in (first, second)]
            if places[0] & places[1]:
                raise NotComparable(
                    f"seeds differ: '{args.a}' has {seeds_of(first)}, '{args.b}' has "
                    f"{seeds_of(second)}; numbers of other seeds do not compare. Run both with the "
                    "same seeds."
                )
        if not any(row.a is not None and row.b is not None for row in rows):
            raise NothingToDo(f"'{args.a}' and '{args.b}' have no cell and metric in common.")
    _print(rows, args.format)
    notes = sys.stderr if args.format == "json" else sys.stdout
    for note in arithmetic_notes(pairs_of(first, second), words="A -> B"):
        print(printable(f"note: {note}"), file=notes)
    for cell in (*first, *second):
        if cell.status == "unfinished":
            words = f"note: not finished: {cell.label}: {cell.reason}"
            print(printable(words), file=notes)
    common = [row for row in rows if row.a is not None and row.b is not None]
    bad = [row for row in common if row.mark == "not comparable"]
    if len(bad) == len(common) or not all(row.volatile for row in bad):
        reasons = sorted({row.reason or "" for row in bad})
        raise NotComparable(
            f"{len(bad)} of {len(common)} numbers do not compare. {' '.join(reasons[:3])}"
        )
    return 0


def _print(rows: Sequence[Comparison], style: str) -> None:
    from tfq_bench.output import markdown, terminal

    if style == "json":
        print(json.dumps({"schema": 1, "rows": [_to_json(row) for row in rows]}, indent=1))
        return
    table = markdown.table if style == "md" else terminal.table
    print(table(_HEADERS, [_cells(row) for row in rows]).rstrip("\n"))
    reasons = sorted({row.reason for row in rows if row.reason})
    if reasons:
        print()
    for reason in reasons:
        print(f"- {markdown.escape(reason)}" if style == "md" else f"note: {printable(reason)}")


def _cells(row: Comparison) -> tuple[str, ...]:
    from tfq_bench.output.terminal import number

    interval = row.delta.interval if row.delta else None
    return (
        row.label,
        row.metric,
        number(row.a, row.unit),
        number(row.b, row.unit),
        number(row.delta.value if row.delta else None, signed=True),
        number(interval.low if interval else None, signed=True),
        number(interval.high if interval else None, signed=True),
        "-" if row.delta is None or not interval else "paired" if row.delta.paired else "unpaired",
        row.mark,
    )


def _to_json(row: Comparison) -> dict[str, Any]:
    from tfq_bench.store.records import json_number

    interval = row.delta.interval if row.delta else None
    return {
        "cell": row.label,
        "metric": row.metric,
        "unit": row.unit,
        "a": None if row.a is None else json_number(row.a),
        "b": None if row.b is None else json_number(row.b),
        "difference": json_number(row.delta.value) if row.delta else None,
        "low": json_number(interval.low) if interval else None,
        "high": json_number(interval.high) if interval else None,
        "paired": row.delta.paired if row.delta else None,
        "mark": row.mark,
        "reason": row.reason,
    }
