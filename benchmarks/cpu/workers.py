"""A contestant in a process of its own, which is asked for one call at a time.

So that its memory is its own, comes back when it is done, and can be told: what it allocates, and
what it maps from the file of weights that all share.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import re
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cpu.prepared import Setup

__all__ = ["Failed", "Made", "Worker", "in_a_process"]

_FORKED = multiprocessing.get_context("forkserver")
# Importing them takes 10 s of a core; none of them has started a thread.
_FORKED.set_forkserver_preload(
    [
        "cpu.contestants",
        "diffusers.models.unets.unet_2d",
        "diffusers.models.unets.unet_2d_condition",
    ]
)
_WATCH_S = 0.2
"""Between two looks at the memory of a process that works."""


class Failed(Exception):
    """A process could not do what it was asked for; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a contestant tells when it is ready: its first output, float32, and a remark."""

    output: Any
    remark: str
    seconds: float


class Worker:
    """The process of one contestant.

    Attributes:
        own_bytes: the most that it was seen to allocate, mapped files not counted.
        peak_bytes: its largest resident memory, weights that are mapped included.
    """

    def __init__(self, setup: Setup, name: str) -> None:
        self.own_bytes = self.peak_bytes = 0
        self._connection, theirs = _FORKED.Pipe()
        self._process = _FORKED.Process(target=_serve, args=(theirs, setup, name), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.made: Made = self._answer()
        except Failed:
            self.close()
            raise

    def call(self) -> float:
        """Milliseconds of one call."""
        self._connection.send("call")
        return self._answer()

    def close(self) -> None:
        """Ends the process, whose memory is free then."""
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        while not self._connection.poll(_WATCH_S):
            self._look()
        try:
            found = self._connection.recv()
        except EOFError:
            self._process.join()
            raise Failed(f"its process ended with exit code {self._process.exitcode}") from None
        self._look()
        if isinstance(found, str):
            raise Failed(found)
        return found

    def _look(self) -> None:
        own, peak = _memory(self._process.pid)
        self.own_bytes = max(self.own_bytes, own)
        self.peak_bytes = max(self.peak_bytes, peak)


def in_a_process(function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function of a module elsewhere, so that its memory comes back.

    Raises:
        Failed: it raised, or its process was ended.
    """
    process = _FORKED.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise Failed(f"{function.__name__}: its process ended with exit code {process.exitcode}")


def _serve(connection: Connection, setup: Setup, name: str) -> None:
    """Makes the contestant, then answers every message with the time of a call."""
    import torch

    from cpu.contestants import CONTESTANTS, EXTERNAL
    from cpu.prepared import load

    torch.set_num_threads(setup.threads)
    torch.set_grad_enabled(False)
    begin = time.perf_counter()
    try:
        if name in EXTERNAL:  # an engine that pins its threads itself must know of no others
            _pin(setup.cores)
        contestant = CONTESTANTS[name](load(setup))
        output = contestant.call().float()
    except Exception as error:  # whatever stops one, the others are still measured
        first = (str(error).splitlines() or [""])[0]
        connection.send(f"{type(error).__name__}: {first}")
        return
    _pin(setup.cores)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    seconds = time.perf_counter() - begin
    connection.send(Made(output=output.numpy(), remark=contestant.remark, seconds=seconds))
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()
        contestant.call()
        connection.send((time.perf_counter() - begin) * 1e3)


def _pin(cores: tuple[int, ...]) -> None:
    """Every thread of this process to these cores, and so those that they start."""
    for thread in Path("/proc/self/task").iterdir() if cores else ():
        os.sched_setaffinity(int(thread.name), cores)


def _memory(pid: int | None) -> tuple[int, int]:
    """Bytes that a process has allocated, and its largest resident memory; zeros when it ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", text, re.MULTILINE))
    return int(found.get("RssAnon", 0)) * 1024, int(found.get("VmHWM", 0)) * 1024
