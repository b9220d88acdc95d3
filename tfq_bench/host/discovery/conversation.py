"""The parent's end of a child process: what it tells, prints and takes, bounded in every way."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tfq_bench.foreign.text import parse_json, printable

__all__ = ["Child", "Stopped"]

START_S = 20.0
"""For the process to begin at all, where the limit of an entry is shorter."""

MAX_ANSWER = 1 << 23
MAX_PRINTED = 1 << 16
MAX_MEMORY = 8 << 30
POLL_S = 0.2

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from tfq_bench.host.discovery.child import main; main(int(sys.argv[2]))"
)


class Stopped(Exception):
    """Why a child was stopped, as a phrase that stands behind "it"."""


class Child:
    """One child process and what comes from it."""

    def __init__(self, entries: list[dict[str, Any]], limit: float, check: bool) -> None:
        self._limit = limit
        self._output: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._lines = bytearray()
        self._channel, other = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _START,
                    json.dumps([str(folder) for folder in sys.path]),
                    str(other.fileno()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[other.fileno()],
                start_new_session=True,  # neither the terminal nor its Ctrl-C reach it
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            other.close()
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for descriptor, name in (
            (self._channel.fileno(), "events"),
            (self._process.stdout.fileno(), "out"),
            (self._process.stderr.fileno(), "err"),
        ):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, name)
        self._request = {
            "entries": entries,
            "path": [str(folder) for folder in sys.path],
            "parent": os.getpid(),
            "check": check,
        }

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._selector.close()
        self._channel.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def events(self) -> Iterator[dict[str, Any]]:
        """What the child tells, until it ends.

        Raises:
            Stopped: it takes too long, prints or tells without end, or takes too much memory.
        """
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(self._request).encode())
            self._process.stdin.close()
        deadline = time.monotonic() + max(self._limit, START_S)  # to begin at all
        while True:
            ended = self._process.poll() is not None  # asked before reading: then all is there
            self._receive(0 if ended else POLL_S)
            while b"\n" in self._lines:
                line, _, rest = self._lines.partition(b"\n")
                self._lines = bytearray(rest)
                yield self._event(bytes(line))
                with suppress(OSError):
                    os.write(self._channel.fileno(), b".")  # it waits: nothing is told twice
                deadline = time.monotonic() + self._limit
            if ended:
                return
            if time.monotonic() > deadline:
                raise Stopped(f"had not ended after {self._limit:g} s (TFQ_BENCH_PLUGIN_TIMEOUT)")
            self._weigh()

    def printed(self) -> str:
        """What is on standard output since the last call."""
        text = self._output["out"].decode("utf-8", "replace")
        self._output["out"].clear()
        return text

    def ending(self) -> str:
        """How the child ended."""
        code = self._process.wait()
        said = self._output["err"].decode("utf-8", "replace").strip().rpartition("\n")[2]
        more = f" ('{printable(said, 200)}')" if said else ""
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = str(-code)
            return f"ends the process by signal {name}{more}"
        return f"ends the process with exit code {code}{more}"

    def _event(self, line: bytes) -> dict[str, Any]:
        try:
            event = parse_json(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise Stopped("writes into the host's own channel")
        return event

    def _receive(self, wait: float) -> None:
        """Reads all that is there; after an event, standard output too, which came before it."""
        ready = self._selector.select(wait)
        ready = self._selector.select(0) if ready else ready
        while ready:
            for key, _ in ready:
                self._take(key)
            ready = self._selector.select(0)

    def _take(self, key: selectors.SelectorKey) -> None:
        try:
            content = os.read(key.fd, 1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            content = b""
        if not content:
            self._selector.unregister(key.fd)
        elif key.data == "events":
            self._lines += content
            if len(self._lines) > MAX_ANSWER:
                raise Stopped(f"offers more than {MAX_ANSWER >> 20} MiB of descriptions")
        else:
            kept = self._output[key.data]
            kept += content
            if key.data == "out" and len(kept) > MAX_PRINTED:
                raise Stopped("prints to standard output without end")
            del kept[:-MAX_PRINTED]

    def _weigh(self) -> None:
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:  # noqa: PTH123
                pages = int(file.read().split()[1])
        except (OSError, ValueError, IndexError):
            return
        if pages * os.sysconf("SC_PAGE_SIZE") > MAX_MEMORY:
            raise Stopped(f"takes more than {MAX_MEMORY >> 30} GiB of memory")

    def _kill(self) -> None:
        """Ends the child and what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
