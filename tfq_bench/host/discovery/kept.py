"""Answers of plugins that stay true while nothing that they depend on has changed.

One file per machine state: Python, search path, installed distributions, environment variables.
Inside, each answer lists the files that were imported for it. A file that is damaged, changed,
somebody else's or not writable is as good as none: then plugins are tried again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfq_bench.foreign.text import parse_json
from tfq_bench.host.discovery.reading import read_small

__all__ = ["CACHE_VARIABLE", "Kept"]

log = logging.getLogger("tfq_bench.host")

CACHE_VARIABLE = "TFQ_BENCH_CACHE"
SCHEMA = 1
MAX_BYTES = 1 << 25
MAX_FILES = 20
"""States that are remembered, the latest ones."""

DISTURBING_S = 3600.0
"""How long an entry point that harms the process that imports it is not tried again."""

BROKEN_S = 60.0
"""The same for one that only fails: the workers of a run do not try it again, and who puts right
what it lacks hardly waits."""

_METADATA = (".dist-info", ".egg-info", ".egg-link", ".pth")
_VOLATILE = frozenset(
    ("_", "COLUMNS", "LINES", "OLDPWD", "PWD", "PYTEST_CURRENT_TEST", "SHLVL", "TERM", "WINDOWID")
)
"""Variables that differ between two commands of one person."""


class Kept:
    """The answers that are kept for this state of the machine.

    Args:
        host: version of the host, with a digest of its code where that is editable.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._path = self._place()
        self._answers = {} if self._path is None else self._load(self._path)

    def get(self, entry: Mapping[str, str]) -> dict[str, Any] | None:
        """The answer of an entry point, None when it must be tried."""
        answer = self._answers.get(_id(entry))
        try:
            return answer if answer is not None and _holds(answer) else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def add(self, answers: Sequence[tuple[Mapping[str, str], dict[str, Any]]]) -> None:
        """Keeps answers: those without fault for good, others for a while."""
        for entry, answer in answers:
            broken = any(fault[0] == "broken" for fault in answer["faults"])
            lasts = DISTURBING_S if answer["disturbances"] else BROKEN_S if broken else None
            until = None if lasts is None else time.time() + lasts
            self._answers[_id(entry)] = {**answer, "until": until}
        if self._path is not None and answers:
            try:
                self._write(self._path)
            except (OSError, ValueError) as error:
                log.debug("answers of plugins are not kept: %s", error)

    def _place(self) -> Path | None:
        """The file of this state; None where there is no place for one."""
        given = os.environ.get(CACHE_VARIABLE)
        try:
            base = Path(given).expanduser() if given else Path.home() / ".cache" / "tfq-bench"
            name = hashlib.sha256(json.dumps(self._state()).encode("utf-8", "replace")).hexdigest()
            return base.absolute() / "plugins" / f"{name[:32]}.json"
        except (OSError, RuntimeError, ValueError) as error:
            log.debug("answers of plugins are not kept: %s", error)
            return None

    def _state(self) -> list[Any]:
        return [
            SCHEMA,
            self._host,
            sys.version,
            sys.executable,
            [str(folder) for folder in sys.path],
            [_metadata(str(folder)) for folder in dict.fromkeys(sys.path)],
            sorted((k, v) for k, v in os.environ.items() if k not in _VOLATILE),
        ]

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            whole = parse_json(read_small(path, MAX_BYTES, owner=os.geteuid()))
            if whole["schema"] == SCHEMA and whole["sha256"] == _digest(whole["answers"]):
                return dict(whole["answers"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            log.debug("%s is not used: %s", path, error)
        return {}

    def _write(self, path: Path) -> None:
        """Atomic: of several processes that write, the last one is believed."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        whole = {"schema": SCHEMA, "sha256": _digest(self._answers), "answers": self._answers}
        part = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
        try:
            with part.open("x", encoding="utf-8") as file:
                json.dump(whole, file)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        found = [(one.stat().st_mtime, one) for one in path.parent.iterdir() if one.is_file()]
        for _, old in sorted(found, reverse=True)[MAX_FILES:]:
            with suppress(OSError):
                old.unlink()


def _holds(answer: Mapping[str, Any]) -> bool:
    """Whether nothing that the answer depends on is another."""
    until = answer["until"]
    if until is not None and not 0 < until - time.time() <= DISTURBING_S:
        return False
    for path, (mtime_ns, size) in answer["files"].items():
        try:
            status = os.stat(path)  # noqa: PTH116  (thousands of them)
        except OSError:
            return False
        if (status.st_mtime_ns, status.st_size) != (mtime_ns, size):
            return False
    return True


def _metadata(folder: str) -> list[tuple[str, int]]:
    """Names and times of what pip writes into a folder of the search path."""
    with suppress(OSError), os.scandir(folder or ".") as entries:
        return sorted(
            (entry.name, entry.stat().st_mtime_ns)
            for entry in entries
            if entry.name.endswith(_METADATA)
        )
    return []


def _id(entry: Mapping[str, str]) -> str:
    return json.dumps([entry[key] for key in sorted(entry)])


def _digest(answers: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()
