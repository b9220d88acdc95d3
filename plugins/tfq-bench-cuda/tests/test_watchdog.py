"""Calls in a child process: those that hang, fail or end it are lost, and the next one works."""

from __future__ import annotations

import importlib
import os
from functools import partial

import pytest

from tfq_bench_cuda.watchdog import Lost, Watched


def test_a_call_that_hangs_is_ended():
    """The next one gets a process of its own."""
    with_time = Watched(partial(importlib.import_module, "time"))
    try:
        with pytest.raises(Lost, match=r"did not end in 0.2 s"):
            with_time.call("sleep", 600, seconds=0.2)
        assert with_time.call("sleep", 0, seconds=60) is None
    finally:
        with_time.close()


def test_a_call_that_fails_or_ends_its_process_is_lost():
    """What was raised is a sentence; an object that cannot be made, too."""
    with_os = Watched(partial(importlib.import_module, "os"))
    try:
        with pytest.raises(Lost, match="FileNotFoundError"):
            with_os.call("stat", "/no/such/file", seconds=60)
        with pytest.raises(Lost, match="ended its process"):
            with_os.call("_exit", 3, seconds=60)
        assert with_os.call("getpid", seconds=60) != os.getpid()
    finally:
        with_os.close()
    with pytest.raises(Lost, match="ModuleNotFoundError"):
        Watched(partial(importlib.import_module, "no_such_module")).call("anything")
