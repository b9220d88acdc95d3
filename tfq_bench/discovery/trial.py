"""Tries entry points in a child process, where all that they can break is the child.

The entry points are tried one after the other. One during which the child exits, crashes, goes on
for too long, prints or changes the process is broken, and the others go on in a new child.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfq_bench.errors import PluginError
from tfq_bench.foreign import parse_json, printable

__all__ = ["Answer", "time_limit", "tried"]

LIMIT_VARIABLE = "TFQ_BENCH_PLUGIN_TIMEOUT"
LIMIT_S = 20.0
"""A cold disk on a busy machine is slow; what does not end is cut off all the same."""

CHECK_LIMIT_S = 120.0
"""For a factory, which may import torch and more."""

MAX_ANSWER = 1 << 23
MAX_PRINTED = 1 << 16
MAX_FILES = 1000
MAX_MEMORY = 8 << 30
POLL_S = 0.2

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from tfq_bench.discovery.child import main; main(int(sys.argv[2]))"
)

Answer = dict[str, Any]
"""What `Draft.answer` returned in the child, `files` with their state and `disturbances`: phrases
that say what it did besides."""


def time_limit(default: float = LIMIT_S) -> float:
    """Seconds that one entry point may take: `$TFQ_BENCH_PLUGIN_TIMEOUT`, or 20.

    Raises:
        PluginError: the variable is no positive number.
    """
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(given) if given else default
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1e6:
        raise PluginError(
            f"{LIMIT_VARIABLE} should be a positive number of seconds, found "
            f"'{printable(given, 80)}'."
        )
    return limit


def tried(entries: Sequence[dict[str, Any]], *, check: bool = False) -> list[Answer]:
    """What each entry answers, in order.

    Args:
        entries: fields of the entry points to import.
        check: entries are providers instead, whose factories are looked at.

    Raises:
        PluginError: the time limit is none.
    """
    limit = time_limit(CHECK_LIMIT_S if check else LIMIT_S)
    waiting, failed_starts = list(range(len(entries))), 0
    answers: dict[int, Answer] = {}
    while waiting:
        began, found, fault = _conversation([entries[n] for n in waiting], limit, check)
        answers.update(zip(waiting, found, strict=False))
        waiting = waiting[len(found) :]
        if began or found:
            failed_starts = 0
        else:
            failed_starts += 1
        if fault and waiting and (began or failed_starts > 1):
            blamed = waiting[:1] if began else waiting
            for number in blamed:
                answers[number] = _refused(entries[number]["module"], fault)
            waiting = waiting[len(blamed) :]
    return [answers[number] for number in range(len(entries))]


def _refused(module: str, fault: str) -> Answer:
    return {
        "offers": [],
        "faults": [],
        "observers": [],
        "files": _sources(module),
        "disturbances": [fault],
    }


def _sources(module: str) -> dict[str, list[int]]:
    """State of the Python files of a module's package, which nobody could say who imported it."""
    found: dict[str, list[int]] = {}
    with suppress(Exception):
        spec = importlib.util.find_spec(module.partition(".")[0].partition(":")[0].strip())
        roots = (
            [] if spec is None else [Path(root) for root in spec.submodule_search_locations or ()]
        )
        files = [path for root in roots for path in root.rglob("*.py")]
        if spec is not None and spec.origin:
            files.append(Path(spec.origin))
        for path in files[:MAX_FILES]:
            status = path.stat()
            found[str(path)] = [status.st_mtime_ns, status.st_size]
    return found


def _conversation(
    entries: list[dict[str, Any]], limit: float, check: bool
) -> tuple[bool, list[Answer], str]:
    """Whether an entry was begun and not ended, the answers before it, and what became of it."""
    began = False
    answers: list[Answer] = []
    try:
        with _Child(entries, limit, check) as child:
            for event in child.events():
                if "start" in event:
                    began = True
                elif "end" in event:
                    answers.append(_checked(event["answer"], child.printed()))
                    began = False
            return began, answers, child.ending()
    except _Stopped as stopped:
        return began, answers, str(stopped)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error  # this machine's fault, not the plugin's
        return began, answers, f"cannot be tried, since no process can be started: {error.strerror}"


def _checked(answer: Any, printed: str) -> Answer:
    """The answer with what was printed during it."""
    try:
        disturbances = [printable(one, 200) for one in answer["disturbances"]]
        files = dict(answer["files"])
    except (KeyError, TypeError, ValueError):
        raise _Stopped("writes into the host's own channel") from None
    if printed:
        disturbances.append(f"prints to standard output ('{printable(printed, 80)}')")
    return {**answer, "files": files, "disturbances": disturbances}


class _Stopped(Exception):
    """Why a child was stopped, as a phrase that stands behind "it"."""


class _Child:
    """One child process and what comes from it."""

    def __init__(self, entries: list[dict[str, Any]], limit: float, check: bool) -> None:
        self._limit = limit
        self._output: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._lines = bytearray()
        self._channel, other = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(other.fileno())],
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
            "path": sys.path,
            "parent": os.getpid(),
            "check": check,
        }

    def __enter__(self) -> _Child:
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
            _Stopped: it takes too long, prints or tells without end, or takes too much memory.
        """
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(self._request).encode())
            self._process.stdin.close()
        deadline = time.monotonic() + max(self._limit, LIMIT_S)  # to begin at all
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
                raise _Stopped(f"had not ended after {self._limit:g} s ({LIMIT_VARIABLE})")
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
            raise _Stopped("writes into the host's own channel")
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
                raise _Stopped(f"offers more than {MAX_ANSWER >> 20} MiB of descriptions")
        else:
            kept = self._output[key.data]
            kept += content
            if key.data == "out" and len(kept) > MAX_PRINTED:
                raise _Stopped("prints to standard output without end")
            del kept[:-MAX_PRINTED]

    def _weigh(self) -> None:
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:  # noqa: PTH123
                pages = int(file.read().split()[1])
        except (OSError, ValueError, IndexError):
            return
        if pages * os.sysconf("SC_PAGE_SIZE") > MAX_MEMORY:
            raise _Stopped(f"takes more than {MAX_MEMORY >> 30} GiB of memory")

    def _kill(self) -> None:
        """Ends the child and what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
