"""Calls in a child process that is ended when one takes too long: a kernel may hang the GPU."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Lost", "Watched"]


class Lost(Exception):
    """A call that did not come back; what was wrong, for a sentence."""


class Watched:
    """An object that lives in a child process, started when it is first called.

    Args:
        factory: makes it there; what can be pickled.
    """

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory
        self._child: tuple[Any, Connection] | None = None

    def call(self, name: str, *args: Any, seconds: float | None = None) -> Any:
        """What the object's method gives.

        Args:
            seconds: after which the child is ended; None waits for as long as it lives.

        Raises:
            Lost: it took too long, raised, or ended its process. The next call gets a new one, as
                an error on the GPU spoils all that comes after it.
        """
        if self._child is None:
            self._start()
        assert self._child is not None
        _, pipe = self._child
        try:
            pipe.send((name, args))
            if not pipe.poll(seconds):
                raise Lost(f"did not end in {seconds:g} s")
            error, value = pipe.recv()
        except (EOFError, OSError):
            self.close()
            raise Lost("ended its process") from None
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()
            raise Lost(error)
        return value

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            process, pipe = self._child
            self._child = None
            process.kill()
            process.join()
            pipe.close()

    def _start(self) -> None:
        """Its start is not part of a call's time.

        Raises:
            Lost: the object cannot be made.
        """
        context = multiprocessing.get_context("spawn")  # CUDA survives no fork
        pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(self._factory, other), daemon=True)
        process.start()
        other.close()
        self._child = (process, pipe)
        try:
            error, _ = pipe.recv()
        except EOFError:
            error = "ended its process at the start"
        if error is not None:
            self.close()
            raise Lost(error)


def _serve(factory: Callable[[], Any], pipe: Connection) -> None:
    """The child: calls what it is asked for, until the parent goes away."""
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            served = factory()
        except Exception as error:
            pipe.send((_said(error), None))
            return
        pipe.send((None, None))
        while True:
            name, args = pipe.recv()
            said, value = None, None
            try:
                value = getattr(served, name)(*args)
            except Exception as error:
                said = _said(error)
            pipe.send((said, value))


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
