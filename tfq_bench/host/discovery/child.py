"""The child process in which plugins are tried; started by `trial`.

Each event is one line of JSON, after which it waits for one byte:

    {"ready": true}             it can begin
    {"start": 3}                entry 3 of the request is about to be imported
    {"end": 3, "answer": ...}   what was found
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["checking", "discovering", "main"]


def main(channel: int) -> None:
    """Tries every entry of the request on standard input; never returns."""
    leave, write, read, own = os._exit, os.write, os.read, os.getpid()
    encode = json.JSONEncoder().encode
    request = json.load(sys.stdin.buffer)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _be_small(request["parent"])
    sys.path[:] = request["path"]
    sys.argv[:] = ["tfq-bench"]

    from tfq_bench.foreign import interrupts

    def tell(event: dict[str, Any]) -> None:
        if os.getpid() != own:  # a plugin has forked
            leave(1)
        line = memoryview(encode(event).encode() + b"\n")
        try:
            while line:
                line = line[write(channel, line) :]
            read(channel, 1)
        except OSError:
            write(2, b"closes files that the host has opened")
            leave(1)

    with interrupts.watched():
        work = checking() if request["check"] else discovering()
        _try_all(request["entries"], work, tell, leave)
    leave(0)


_WATCHED = (
    *("csv", "datetime", "hashlib", "hmac", "random", "shutil", "statistics", "tempfile"),
    *("tomllib", "tfq_bench.api", "tfq_bench.keys"),
)
"""Imported beforehand: what is not there cannot be seen to change."""

Work = Callable[[dict[str, Any]], dict[str, Any]]


def _try_all(
    entries: list[dict[str, Any]],
    work: Work,
    tell: Callable[[dict[str, Any]], None],
    leave: Callable[[int], Any],
) -> None:
    from tfq_bench.host.discovery.disturbance import Watch

    for name in _WATCHED:
        importlib.import_module(name)
    flush = ctypes.CDLL(None).fflush
    known = set(sys.modules)
    tell({"ready": True})
    for number, entry in enumerate(entries):
        watch = Watch()
        tell({"start": number})
        answer = work(entry)
        disturbances = watch.changes()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        flush(None)
        answer["files"] = _files(known)
        answer["disturbances"] = disturbances
        tell({"end": number, "answer": answer})
        if disturbances:
            leave(0)  # the next ones are tried in a process that is as it should be


def discovering() -> Work:
    """Imports an entry point and asks what it offers; `Draft.answer` of it."""
    import pluggy

    from tfq_bench.host import hookspecs
    from tfq_bench.host.inspection import Draft, PluginInfo, inspect

    manager = pluggy.PluginManager("tfq_bench")
    manager.add_hookspecs(hookspecs)

    def work(entry: dict[str, Any]) -> dict[str, Any]:
        draft = Draft(PluginInfo(**entry))
        inspect(draft, manager)
        return draft.answer()

    return work


def checking() -> Work:
    """Looks at the factory of one provider; its faults."""
    from tfq_bench.host.described import from_data
    from tfq_bench.host.discovery.factories import factory_faults

    def work(entry: dict[str, Any]) -> dict[str, Any]:
        provider = from_data(entry["provider"])
        faults = [["broken", fault] for fault in factory_faults(provider, entry["module"])]
        return {"offers": [], "faults": faults}

    return work


def _files(known: set[str]) -> dict[str, list[int]]:
    """Modification time and size of each file that was imported since `known`."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name in known or name.partition(".")[0] in ("tfq_bench", *sys.stdlib_module_names):
            continue
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            try:
                status = os.stat(path)  # noqa: PTH116  (thousands of them)
            except OSError:
                continue
            found[os.path.abspath(path)] = [status.st_mtime_ns, status.st_size]  # noqa: PTH100
    return found


def _be_small(parent: int) -> None:
    """Ends with its parent, leaves no core file, and is the first to go when memory runs out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
                file.write("1000")
        except OSError:
            pass
    if os.getppid() != parent:
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
