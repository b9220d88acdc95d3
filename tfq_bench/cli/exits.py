"""What ends a command, as a message and an exit code; as JSON too where the command prints JSON."""

from __future__ import annotations

import errno
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tfq_bench.cli.streams import EXIT_BUG, discard_stdout
from tfq_bench.errors import TfqError, UsageError
from tfq_bench.foreign.text import printable

__all__ = ["ErrorReporter", "ShortFormatter"]

MOST_CHARACTERS = 10_000
"""Of one message."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReporter:
    """How the user is told what ended the command: a sentence on standard error.

    Args:
        debug: with the traceback before it.
        as_json: and an object on standard output, for whoever reads JSON there:
            `{"error": {"kind", "message", "exit_code", ...}}` with what is known of `ErrorContext`.
    """

    debug: bool = False
    as_json: bool = False

    @classmethod
    def of(cls, words: Sequence[str]) -> ErrorReporter:
        """As the words of a command line ask for, also where they cannot be parsed."""
        return cls(
            debug="--debug" in words,
            as_json="--json" in words
            or "--format=json" in words
            or ("--format", "json") in pairwise(words),
        )

    def exit_code(self, error: BaseException) -> int:
        """Says what happened, and gives the exit code that stands for it."""
        match error:
            case KeyboardInterrupt():
                message = "interrupted; what is finished is kept, and the same command goes on."
                return self._failed([message], EXIT_INTERRUPTED, error)
            case BrokenPipeError():
                discard_stdout()
                return EXIT_BROKEN_PIPE
            case TfqError():
                return self._failed(error.lines, error.exit_code, error)
            case OSError(errno=number) if number in _DISK:
                where = f"'{error.filename}'" if error.filename else "a file or the output"
                message = (
                    f"cannot read or write {where}: {_DISK[number]}. Nothing finished is lost; "
                    "make room or choose another folder, then repeat the command."
                )
                return self._failed([message], UsageError.exit_code, error)
        hint = "" if self.debug else " Repeat with --debug for the traceback;"
        message = (
            f"unexpected {type(error).__name__}: {printable(error)}. This is a bug in tfq-bench or "
            f"a plugin.{hint} --no-plugins tells which of the two."
        )
        return self._failed([message], EXIT_BUG, error)

    def flushed(self, code: int) -> int:
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
            discard_stdout()
            message = f"cannot write to standard output: {why}."
            lost = self._failed([message], UsageError.exit_code, error)
            return code or lost
        return code

    def _failed(self, lines: Sequence[str], code: int, error: BaseException) -> int:
        if self.debug:
            traceback.print_exc()
        # Plugins and files are quoted in messages: every line of theirs stays within one of ours.
        first, *rest = lines
        print(f"tfq-bench: {printable(first, MOST_CHARACTERS)}", file=sys.stderr)
        for line in rest:
            print(f"  {_unlike_a_command(printable(line, MOST_CHARACTERS))}", file=sys.stderr)
        if self.as_json:
            _print_json(lines, code, error)
        return code


def _print_json(lines: Sequence[str], code: int, error: BaseException) -> None:
    known = error.context.known() if isinstance(error, TfqError) else {}
    message = "\n".join(printable(line, MOST_CHARACTERS) for line in lines)
    public = (kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
    what = {"kind": next(public), "message": message, "exit_code": code, **known}
    try:
        print(json.dumps({"error": what}, indent=2), flush=True)
    except (OSError, ValueError):  # the exit code and the sentence tell already
        discard_stdout()


class ShortFormatter(logging.Formatter):
    """A warning as one line: the cause in words, without its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """`tfq-bench: message: cause`."""
        cause = record.exc_info[1] if record.exc_info else None
        end = "" if cause is None else f": {type(cause).__name__}: {cause}"
        return f"tfq-bench: {printable(f'{record.getMessage()}{end}')}"


def _unlike_a_command(line: str) -> str:
    """GitHub Actions takes a line for a command that begins so, after any spaces."""
    return f"- {line}" if line.startswith(("::", "##[")) else line
