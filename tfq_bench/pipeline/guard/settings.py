"""Settings of the process that foreign code may leave behind, and that change other results.

A plugin that sets the number of threads or torch's default type means its own work; in one process
it would mean everybody's after it, and results would depend on the order of tasks. So each piece of
work begins with the same settings and the same random numbers, and they are set back behind it.
"""

from __future__ import annotations

import contextlib
import decimal
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tfq_bench.pipeline.guard.torch_settings import TORCH, Setting, attribute

__all__ = ["own_settings"]

log = logging.getLogger("tfq_bench.cell")

_UNREADABLE = (RuntimeError, OSError, ValueError, AttributeError)
"""What other versions of torch and other systems raise where they have no such setting."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD)


@contextlib.contextmanager
def own_settings(seed: int) -> Iterator[None]:
    """Global generators start at `seed` inside; afterwards all settings are as they were.

    What had been changed is named in the log. Not for code that runs beside other threads.
    """
    with warnings.catch_warnings(), decimal.localcontext():
        before = _read()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            changed = _restore(before)
            if changed:
                log.warning("settings of the process were left changed: %s", ", ".join(changed))


def _read() -> dict[str, Any]:
    found = {}
    for name, (get, _) in _SETTINGS.items():
        with contextlib.suppress(*_UNREADABLE):
            found[name] = get()
    return found


def _restore(before: dict[str, Any]) -> list[str]:
    changed = []
    for name, was in before.items():
        get, put = _SETTINGS[name]
        try:
            now = get()
        except _UNREADABLE:
            now = None
        if now is was or (type(now) is type(was) and _equal(now, was)):
            continue
        # A default that this build of torch cannot take back is no worse than before.
        with contextlib.suppress(*_UNREADABLE):
            put(was)
        if name not in _RANDOM:
            changed.append(name)
    return changed


def _equal(one: Any, other: Any) -> bool:
    return repr(one) == repr(other) if isinstance(one, tuple) else bool(one == other)


def _set_environment(was: dict[str, str]) -> None:
    for name in set(os.environ) - set(was):
        del os.environ[name]
    os.environ.update(was)


def _numpy_random() -> tuple[Any, ...]:
    """The state with its 624 numbers as bytes, which compare at once."""
    name, numbers, *rest = np.random.get_state()
    return name, np.asarray(numbers).tobytes(), *rest


def _set_numpy_random(was: tuple[Any, ...]) -> None:
    name, numbers, *rest = was
    np.random.set_state((name, np.frombuffer(numbers, dtype=np.uint32), *rest))


def _signals() -> tuple[Any, ...]:
    return tuple(signal.getsignal(number) for number in _SIGNALS)


def _set_signals(was: tuple[Any, ...]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in zip(_SIGNALS, was, strict=True):
        if handler is not None:  # None was not installed from Python
            signal.signal(number, handler)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _cores() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0)))


_RANDOM = ("random", "numpy.random", "torch.random")

_SETTINGS: dict[str, Setting] = {
    "random": (random.getstate, random.setstate),
    "numpy.random": (_numpy_random, _set_numpy_random),
    "torch.random": (
        lambda: torch.random.get_rng_state().numpy().tobytes(),
        lambda was: torch.random.set_rng_state(torch.frombuffer(bytearray(was), dtype=torch.uint8)),
    ),
    **TORCH,
    "numpy errors": (np.geterr, lambda was: np.seterr(**was)),
    "environment": (lambda: dict(os.environ), _set_environment),
    "umask": (_umask, os.umask),
    "cores": (_cores, lambda was: os.sched_setaffinity(0, was)),
    "working directory": (Path.cwd, os.chdir),
    "import path": (lambda: list(sys.path), lambda was: sys.path.__setitem__(slice(None), was)),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "garbage collection": (
        gc.isenabled,
        lambda was: gc.enable() if was else gc.disable(),
    ),
    "locale": (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda was: locale.setlocale(locale.LC_ALL, was),
    ),
    "signal handlers": (_signals, _set_signals),
    "stdout": attribute(sys, "stdout"),
    "stderr": attribute(sys, "stderr"),
    "logging": (
        lambda: logging.root.manager.disable,
        lambda was: logging.disable(was),
    ),
}
