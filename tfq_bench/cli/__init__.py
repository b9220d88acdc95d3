"""The command `tfq-bench`: finds the verb, runs it, turns errors into messages and exit codes.

Each verb is a module `tfq_bench.cli.<verb>` with `NAME`, `HELP`, `add_arguments(parser)` and
`execute(args) -> int`; only the chosen one is imported.

    0 done   1 regression   2 usage, suite, plugin or file   3 some cells failed
    4 not comparable   5 nothing to do   70 a bug   130 interrupted   141 the reader went away
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from tfq_bench import __version__, interrupts
from tfq_bench.errors import TfqError, UsageError, nearest
from tfq_bench.foreign import printable

__all__ = ["VERBS", "Parser", "main"]

VERBS = {
    "plugins": "list what is installed, and what is wrong with it",
    "plan": "show the cells of a suite without running any",
    "assets": "list, check and fetch the files that models and metrics need",
    "run": "run a suite, or go on with it",
    "cell": "run one task of one cell again",
    "status": "show how far a run is",
    "baseline": "store reviewed results to compare with",
    "gate": "fail when results are worse than a baseline",
    "compare": "compare two runs",
    "report": "write an HTML report of a run",
}
"""Verbs in the order of ``--help``; static, so that help imports none of them."""

MOST_CHARACTERS = 10_000
"""Of one message."""

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_DISK = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission was denied",
    errno.EPERM: "permission was denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.ELOOP: "links lead back to themselves",
}


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
    _open_streams()
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    if debug:
        logging.basicConfig(level=logging.DEBUG)
    elif logging.lastResort is not None:
        logging.lastResort.setFormatter(_Short())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no locale decides an exit code
    # torch would read the entry points of everything that is installed and import some of it: one
    # damaged distribution, and no model could be loaded.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(interrupts.watched())
            stack.enter_context(_no_silent_end())
            try:
                args = _parse(argv)
            except SystemExit as stop:  # --help and --version end here
                return stop.code if isinstance(stop.code, int) else 0
            if args.block:
                from tfq_bench.host import refuse_unknown

                refuse_unknown(args.block)
            stack.enter_context(_blocking(args))
            return _told(int(args.execute(args)), debug)
    except KeyboardInterrupt:
        message = "interrupted; what is finished is kept, and the same command goes on."
        return _fail(message, EXIT_INTERRUPTED, debug)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except TfqError as error:
        return _fail(error.lines, error.exit_code, debug)
    except OSError as error:
        if error.errno not in _DISK:
            return _bug(error, debug)
        where = f"'{error.filename}'" if error.filename else "a file or the output"
        return _fail(
            f"cannot read or write {where}: {_DISK[error.errno]}. Nothing finished is lost; make "
            "room or choose another folder, then repeat the command.",
            UsageError.exit_code,
            debug,
        )
    except BaseException as error:  # SystemExit and CancelledError of a plugin among them
        return _bug(error, debug)


def _told(code: int, debug: bool) -> int:
    """The exit code, once what was printed is on its way.

    Raises:
        BrokenPipeError: the reader went away; noticed here, not at exit.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        why = _DISK.get(error.errno or 0, str(error))
        with contextlib.suppress(OSError, ValueError):  # what is left would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        lost = _fail(f"cannot write to standard output: {why}.", UsageError.exit_code, debug)
        return code or lost
    return code


def _open_streams() -> None:
    """Where a standard stream is closed (`>&-`), nothing is read or written instead.

    Its number is taken, because the next file that is opened would get it, and prints with it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: PTH123, SIM115


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
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


@contextlib.contextmanager
def _no_silent_end() -> Iterator[None]:
    """Code of a plugin in use that ends this process with 0 ends it with 70, and a sentence.

    So does one that puts another program in its place. What C code does is not seen here.
    """
    leave, replace, replace_with, own = os._exit, os.execv, os.execve, os.getpid()

    def bug() -> NoReturn:
        os.write(2, b"tfq-bench: a plugin has ended the process; nothing can be said.\n")
        leave(EXIT_BUG)

    def ended(code: int) -> NoReturn:
        if os.getpid() == own and code == 0:
            bug()
        leave(code)

    def replaced(instead: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
        def program(*args: object) -> NoReturn:
            if os.getpid() == own:  # in a forked child it is what one does
                bug()
            instead(*args)

        return program

    os._exit = ended  # type: ignore[assignment]
    os.execv, os.execve = replaced(replace), replaced(replace_with)  # the others call them
    try:
        yield
    finally:
        os._exit, os.execv, os.execve = leave, replace, replace_with


class _Short(logging.Formatter):
    """A warning as one line: the cause in words, without its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """`tfq-bench: message: cause`."""
        cause = record.exc_info[1] if record.exc_info else None
        end = "" if cause is None else f": {type(cause).__name__}: {cause}"
        return f"tfq-bench: {printable(f'{record.getMessage()}{end}')}"


def _fail(message: str | Sequence[str], code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    # Plugins and files are quoted in messages: every line of theirs stays within one of ours.
    first, *rest = [message] if isinstance(message, str) else message
    print(f"tfq-bench: {printable(first, MOST_CHARACTERS)}", file=sys.stderr)
    for line in rest:
        print(f"  {_unlike_a_command(printable(line, MOST_CHARACTERS))}", file=sys.stderr)
    return code


def _unlike_a_command(line: str) -> str:
    """GitHub Actions takes a line for a command that begins so, after any spaces."""
    return f"- {line}" if line.startswith(("::", "##[")) else line


def _bug(error: BaseException, debug: bool) -> int:
    hint = "" if debug else " Repeat with --debug for the traceback;"
    return _fail(
        f"unexpected {type(error).__name__}: {printable(error)}. This is a bug in tfq-bench or a "
        f"plugin.{hint} --no-plugins tells which of the two.",
        EXIT_BUG,
        debug,
    )
