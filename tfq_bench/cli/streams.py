"""Standard streams and the end of the process: what must hold whoever called us, and with what."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

__all__ = ["EXIT_BUG", "discard_stdout", "no_silent_end", "open_streams"]

EXIT_BUG = 70


def open_streams() -> None:
    """Where a standard stream is closed (`>&-`), nothing is read or written instead.

    Its number is taken, because the next file that is opened would get it, and prints with it. What
    the locale cannot say is written as an escape: no locale decides an exit code.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """What is printed from now on goes nowhere; what is left of it would fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def no_silent_end() -> Iterator[None]:
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
