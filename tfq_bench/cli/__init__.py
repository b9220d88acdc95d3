"""The command `tfq-bench`: finds the verb, runs it, turns errors into messages and exit codes.

Each verb is a module `tfq_bench.cli.<verb>` with `NAME`, `HELP`, `add_arguments(parser)` and
`execute(args) -> int`; only the chosen one is imported.

    0 done   1 regression   2 usage, suite, plugin or file   3 some cells failed
    4 not comparable   5 nothing to do   70 a bug   130 interrupted   141 the reader went away

Here: one command a file: its arguments, and what it prints; in `__init__` the parser, and beside it
    streams, exit codes and what says who runs the tasks.
Not here: what commands have in common to say (`output`), and anything that a script would want
    without a command line.
Imports: assets, errors, executors, foreign, host, host.discovery, output, pipeline, pipeline.guard,
    plan, provenance, providers, stats, store, templates, trends, types, version.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from tfq_bench.cli.exits import ErrorReporter, ShortFormatter
from tfq_bench.cli.streams import no_silent_end, open_streams
from tfq_bench.errors import UsageError, nearest
from tfq_bench.foreign import interrupts
from tfq_bench.version import __version__

__all__ = ["VERBS", "Parser", "main"]

VERBS = {
    "doctor": "say what this machine can run, and what is missing",
    "plugins": "list what is installed, and what is wrong with it; begin one of your own",
    "suites": "list or print the packaged suites",
    "init": "write a suite of your own, with comments",
    "plan": "show the cells of a suite without running any",
    "assets": "list, check and fetch the files that models and metrics need",
    "run": "run a suite, or go on with it",
    "cell": "run one task of one cell again",
    "status": "show how far a run is",
    "baseline": "store reviewed results to compare with",
    "gate": "fail when results are worse than a baseline",
    "compare": "compare two runs",
    "report": "write an HTML report of a run",
    "history": "keep many runs in one file: drifts, and where and why a number changed",
}
"""Verbs in the order of ``--help``; static, so that help imports none of them."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UsageError, with the nearest names for an unknown option."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with `message`; argparse would print the usage and exit."""
        raise UsageError(f"{message.rstrip('.')}. See '{self.prog} --help'.")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """The parsed arguments; UsageError when something is left over."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            word = rest[0].partition("=")[0]
            if word.startswith("-"):
                self.error(f"unknown option '{word}'; {nearest(word, self._long_options())}")
            self.error(f"unexpected argument '{word}'")
        return found

    def _long_options(self) -> set[str]:
        names = {name for name in self._option_string_actions if name.startswith("--")}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names.update(*(child._long_options() for child in action.choices.values()))
        return names


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's) and returns the exit code."""
    open_streams()
    words = sys.argv[1:] if argv is None else argv
    reporter = ErrorReporter.of(words)
    if reporter.debug:
        logging.basicConfig(level=logging.DEBUG)
    elif logging.lastResort is not None:
        logging.lastResort.setFormatter(ShortFormatter())
    # torch would read the entry points of everything that is installed and import some of it: one
    # damaged distribution, and no model could be loaded.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(interrupts.watched())
            stack.enter_context(no_silent_end())
            try:
                args = _parse(words)
            except SystemExit as stop:  # --help and --version end here
                return stop.code if isinstance(stop.code, int) else 0
            if args.block:
                from tfq_bench.host.plugins import refuse_unknown

                refuse_unknown(args.block)
            stack.enter_context(_blocking(args))
            return reporter.flushed(int(args.execute(args)))
    except BaseException as error:  # SystemExit and CancelledError of a plugin among them
        return reporter.exit_code(error)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    outer = _outer()
    args = outer.parse_args(argv)
    if args.verb is None:
        outer.error("a command is missing")
    if args.verb not in VERBS:
        raise UsageError(f"unknown command '{args.verb}'; {nearest(args.verb, VERBS)}")
    verb = importlib.import_module(f"tfq_bench.cli.{args.verb}")
    everywhere = Parser(add_help=False)
    _add_global(everywhere)
    flags, rest = everywhere.parse_known_args(args.rest)
    inner = Parser(
        prog=f"tfq-bench {verb.NAME}",
        description=verb.HELP,
        epilog="--debug, --block NAME and --no-plugins work with every command.",
    )
    verb.add_arguments(inner)
    chosen = inner.parse_args(rest)
    chosen.block = [*args.block, *flags.block]
    chosen.no_plugins = args.no_plugins or flags.no_plugins
    chosen.execute = verb.execute
    return chosen


def _outer() -> Parser:
    width = max(map(len, VERBS))
    parser = Parser(
        prog="tfq-bench",
        description="Measure and run quantized diffusion models.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{width}}  {text}" for name, text in VERBS.items())
        + "\n\n'tfq-bench COMMAND --help' tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tfq-bench {__version__}")
    _add_global(parser)
    parser.add_argument("verb", nargs="?", metavar="COMMAND", help="what to do, see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_global(parser: Parser) -> None:
    group = parser.add_argument_group("every command")
    group.add_argument("--debug", action="store_true", help="show tracebacks and log everything")
    group.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out a plugin or distribution; may be repeated",
    )
    group.add_argument("--no-plugins", action="store_true", help="leave out all but the built-in")


@contextlib.contextmanager
def _blocking(args: argparse.Namespace) -> Iterator[None]:
    """Blocks plugins through the environment, so that child processes block the same."""
    names = [*args.block, *(["*"] if args.no_plugins else [])]
    before = os.environ.get("TFQ_BENCH_BLOCK")
    if names:
        os.environ["TFQ_BENCH_BLOCK"] = ",".join([*names, *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TFQ_BENCH_BLOCK", None)
        else:
            os.environ["TFQ_BENCH_BLOCK"] = before
