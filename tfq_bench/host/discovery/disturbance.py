"""What a plugin's entry point does to the process, besides describing what it offers.

What it changes here would change every command: a patched `json` writes other records, a lower
recursion limit breaks what worked. Libraries add to a process when they are imported (variables,
warning filters, modules); only what takes away or replaces something counts.
"""

from __future__ import annotations

import builtins
import gc
import locale
import logging
import os
import resource
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Watch"]

_GUARDED = (
    *("_io", "_json", "_random", "_struct", "_thread", "builtins", "codecs", "collections", "copy"),
    *("csv", "dataclasses", "datetime", "functools", "gc", "genericpath", "hashlib", "hmac"),
    *("importlib", "io", "itertools", "json", "logging", "marshal", "math", "numbers", "operator"),
    *("os", "pathlib", "pluggy", "posix", "posixpath", "random", "shutil", "signal", "statistics"),
    *("struct", "subprocess", "sys", "tempfile", "tfq_bench", "threading", "time", "tomllib"),
    *("types", "weakref", "zlib"),
)
"""What numbers, files and processes go through. Others are patched by well-known libraries."""

_BUILTINS: frozenset[str] = frozenset(vars(builtins))
_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
_SETTINGS = ("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "LD_", "PYTHON", "TFQ_")
"""Variables with such names change what is computed or how; nobody adds one in passing."""


class Watch:
    """Remembers the process as it is; `changes` says what is another since."""

    def __init__(self) -> None:
        self._settings = {name: read() for name, read in _READ.items()}
        self._environment = dict(os.environ)
        self._warnings = list(warnings.filters)
        self._path = list(sys.path)
        self._threads = set(threading.enumerate())
        self._modules = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in _GUARDED}
        self._code = {name: list(_code_of(module)) for name, module in self._modules.items()}

    def changes(self) -> list[str]:
        """Phrases that stand behind "it"; empty when the process is as it was."""
        found = [
            f"changes {name}" for name, read in _READ.items() if read() != self._settings[name]
        ]
        found += self._environment_changes()
        if not _goes_on(self._path, sys.path):
            found.append("removes entries of sys.path")
        found += self._warning_changes()
        left = [t for t in threading.enumerate() if t not in self._threads and not t.daemon]
        if left:
            found.append("leaves a thread that keeps the process from ending")
        found += self._code_changes()
        return found + _torch_changes()

    def _environment_changes(self) -> list[str]:
        before, now = self._environment, dict(os.environ)
        names = [name for name, value in before.items() if now.get(name) != value]
        names += [n for n in now if n not in before and n.startswith(_SETTINGS)]
        return [f"changes the environment variable {name}" for name in sorted(names)]

    def _warning_changes(self) -> list[str]:
        for action, message, category, module, line in warnings.filters:
            one = (action, message, category, module, line)
            everything = message is None and module is None and line == 0 and category is Warning
            if everything and one not in self._warnings:
                return [f"sets every warning to '{action}'"]
        return []

    def _code_changes(self) -> list[str]:
        found = []
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                found.append(f"replaces the module {name}")
                continue
            for label, holder, attribute, value in self._code[name]:
                if vars(holder).get(attribute) is not value:
                    found.append(f"patches {name}.{label}")
        return found[:3]


def _code_of(module: types.ModuleType) -> Iterator[tuple[str, Any, str, Any]]:
    """Functions and classes of a module and of its own classes: label, holder, name, value."""
    for name, value in list(vars(module).items()):
        if name == "__loader__":  # set when somebody asks for it
            continue
        if isinstance(value, type):
            yield name, module, name, value
            if value.__module__ == module.__name__:
                for inner, method in list(vars(value).items()):
                    if isinstance(method, _CODE):
                        yield f"{name}.{inner}", value, inner, method
        elif isinstance(value, _CODE):
            yield name, module, name, value


_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    staticmethod,
    classmethod,
    property,
)


def _goes_on(before: list[str], now: list[str]) -> bool:
    """Whether all of `before` is still in `now`, in its order."""
    rest = iter(now)
    return all(entry in rest for entry in before)


def _torch_changes() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    found = []
    if torch.get_default_dtype() != torch.float32:
        found.append("changes torch's default dtype")
    if not torch.is_grad_enabled():
        found.append("switches torch's gradients off")
    if torch.are_deterministic_algorithms_enabled():
        found.append("switches torch's deterministic algorithms on")
    return found


def _stream(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _handlers() -> list[object]:
    return [signal.getsignal(number) for number in sorted(signal.valid_signals())]


def _timers() -> list[bool]:
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return [signal.getitimer(timer)[0] > 0 for timer in timers]


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(getattr(resource, name)) for name in _LIMITS]


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  (compared, not used as a path)
    except OSError:
        return None


def _closed(name: str) -> Callable[[], tuple[int, bool]]:
    def read() -> tuple[int, bool]:
        stream = getattr(sys, name, None)
        return id(stream), bool(getattr(stream, "closed", True))

    return read


_READ: Mapping[str, Callable[[], object]] = {
    "the recursion limit": sys.getrecursionlimit,
    "the working folder": _working_folder,
    "standard input": lambda: (_closed("stdin")(), _stream(0)),
    "standard output": lambda: (_closed("stdout")(), _stream(1)),
    "standard error": lambda: (_closed("stderr")(), _stream(2)),
    "signal handlers": _handlers,
    "timers of the process": _timers,
    "resource limits": _limits,
    "the file mode mask": _umask,
    "the locale": lambda: locale.setlocale(locale.LC_ALL),
    "tracing": lambda: (sys.gettrace(), sys.getprofile()),
    "garbage collection": lambda: (gc.isenabled(), gc.get_threshold()),
    "sys.excepthook": lambda: (sys.excepthook, sys.unraisablehook, threading.excepthook),
    "logging for everybody": lambda: logging.root.manager.disable,
    "sys.argv": lambda: list(sys.argv),
    "the switch interval": sys.getswitchinterval,
    "built-in names": lambda: {
        name: id(value) for name, value in vars(builtins).items() if name in _BUILTINS
    },
}
