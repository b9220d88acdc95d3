"""Tries entry points in a child process, where all that they can break is the child.

The entry points are tried one after the other. One during which the child exits, crashes, goes on
for too long, prints or changes the process is broken, and the others go on in a new child.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfq_bench.errors import PluginError
from tfq_bench.foreign.text import printable
from tfq_bench.host.discovery.conversation import Child, Stopped

__all__ = ["Answer", "time_limit", "tried"]

LIMIT_VARIABLE = "TFQ_BENCH_PLUGIN_TIMEOUT"
LIMIT_S = 20.0
"""A cold disk on a busy machine is slow; what does not end is cut off all the same."""

CHECK_LIMIT_S = 120.0
"""For a factory, which may import torch and more."""

MAX_FILES = 1000

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
        with Child(entries, limit, check) as child:
            for event in child.events():
                if "start" in event:
                    began = True
                elif "end" in event:
                    answers.append(_checked(event["answer"], child.printed()))
                    began = False
            return began, answers, child.ending()
    except Stopped as stopped:
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
        raise Stopped("writes into the host's own channel") from None
    if printed:
        disturbances.append(f"prints to standard output ('{printable(printed, 80)}')")
    return {**answer, "files": files, "disturbances": disturbances}
