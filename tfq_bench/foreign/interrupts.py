"""Whose KeyboardInterrupt it is: the user's Ctrl-C stops a command, a plugin's own one is a fault.

Code of others may raise anything. What it raises is kept to its own place by
``except BaseException``; the one exception is an interruption that the user asked for.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["asked_for", "watched"]


class _Watch:
    """Whether SIGINT is seen here, and whether it came."""

    on = False
    came = False


def asked_for(error: BaseException) -> bool:
    """Whether `error` is a KeyboardInterrupt that a signal caused.

    Where nobody watches the signal, every KeyboardInterrupt is taken for the user's.
    """
    return isinstance(error, KeyboardInterrupt) and (_Watch.came or not _Watch.on)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Remembers in the block whether SIGINT came; does nothing in a thread other than the main."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or _Watch.on:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _interrupt)
    except ValueError:  # not the main thread, which alone is interrupted
        yield
        return
    _Watch.on, _Watch.came = True, False
    try:
        yield
    finally:
        _Watch.on = False
        signal.signal(signal.SIGINT, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _Watch.came = True
    signal.default_int_handler(signum, frame)
