"""`tfq-bench init`: writes a suite of one's own, from options or from a few questions."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.cli.questions import asked
from tfq_bench.errors import UsageError
from tfq_bench.foreign.text import printable
from tfq_bench.host.plugins import discover
from tfq_bench.plan.suite import parse_suite
from tfq_bench.plan.suite_choices import (
    Choices,
    chosen,
    parsed_bits,
    parsed_count,
    with_metrics,
)
from tfq_bench.plan.suite_draft import drafted
from tfq_bench.plan.suite_format import NAME as SUITE_NAME

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "init"
HELP = (
    "Write a suite with a comment on each number. Without options it asks on a terminal, and takes "
    "the choices of the quickstart elsewhere."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file, a choice for each part of a suite, and how to write it."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("my-suite.toml"),
        metavar="FILE",
        help="what to write (my-suite.toml); its name without .toml is the suite's",
    )
    choices = parser.add_argument_group("choices, by the names that 'tfq-bench plugins list' has")
    choices.add_argument("--model", default="", metavar="NAME", help="the diffusion model")
    choices.add_argument(
        "--source",
        default="",
        metavar="PATH",
        help="folder or hub id of the model's weights, for a model that takes one",
    )
    choices.add_argument(
        "--quantizer",
        action="append",
        default=[],
        metavar="NAME",
        help="a method, beside full precision; may be repeated",
    )
    choices.add_argument(
        "--bits",
        action="append",
        default=[],
        metavar="WxAy",
        help="bits of weights and activations, as W4A8; may be repeated",
    )
    choices.add_argument("--policy", default="", metavar="NAME", help="which layers keep more bits")
    choices.add_argument(
        "--images", default="", metavar="N", help="images of each cell; the cost grows with them"
    )
    choices.add_argument("--device", default="", metavar="NAME", help="cpu or cuda")
    choices.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        help="what executes quantized networks; may be repeated",
    )
    choices.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="what is measured; may be repeated",
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--dry-run", action="store_true", help="print the suite, write nothing")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def execute(args: argparse.Namespace) -> int:
    """Writes the suite once it can be planned."""
    file: Path = args.file
    _refuse_name(file, force=args.force or args.dry_run)
    table = discover()
    given = _given(args)
    if given == Choices() and not args.yes and sys.stdin.isatty() and sys.stdout.isatty():
        given = asked(table)
    choices = _from_suite(with_metrics(chosen(given, table), table), file)
    text = drafted(file.stem, choices, table)
    cells = _planned(text, file, table)
    if args.dry_run:
        print(text, end="")
        return 0
    from tfq_bench.store.disk import write_atomically

    write_atomically(file, text)
    print(f"{printable(file)}: a suite of {cells} cells. See it with 'tfq-bench plan {file}',")
    print(f"run it with 'tfq-bench run {file}'.")
    return 0


def _refuse_name(file: Path, *, force: bool) -> None:
    if file.suffix != ".toml" or not re.fullmatch(SUITE_NAME, file.stem):
        raise UsageError(
            "FILE is expected to be a name that ends in .toml, of letters, digits, '.', '_' and "
            f"'-', since it names the suite; found '{printable(file, 100)}'."
        )
    if file.exists() and not force:
        raise UsageError(
            f"'{printable(file)}' exists already. Choose another name, or write over it with "
            "--force."
        )


def _given(args: argparse.Namespace) -> Choices:
    return Choices(
        model=args.model,
        source=args.source,
        quantizers=tuple(args.quantizer),
        bits=tuple(map(parsed_bits, args.bits)),
        policy=args.policy,
        images=parsed_count(args.images) if args.images else 0,
        device=args.device,
        backends=tuple(args.backend),
        metrics=tuple(args.metric),
    )


def _from_suite(choices: Choices, file: Path) -> Choices:
    """A source that is a path from here becomes one from the suite's folder."""
    source = Path(choices.source).expanduser()
    if not choices.source or source.is_absolute() or not source.exists():
        return choices
    path = os.path.relpath(source, file.absolute().parent)
    return replace(choices, source=path if path.startswith("..") else f"./{path}")


def _planned(text: str, file: Path, table: PluginTable) -> int:
    """How many cells the plan of a suite has.

    Raises:
        TfqError: it cannot be planned; nothing that `plan` refuses is written.
    """
    from tfq_bench.plan.planner import make_plan

    spec = parse_suite(text, str(file), file.absolute().parent)
    return len(make_plan(spec, table).cells)
