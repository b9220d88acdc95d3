"""Claims about memory: only large networks change how freed memory is kept."""

from __future__ import annotations

import ctypes

import pytest
from torch import nn

from tfq_bench.pipeline import memory


@pytest.mark.parametrize(("limit", "expected"), [(0, [(-3, 2**20)]), (2**30, [])])
def test_only_large_networks_return_freed_memory(monkeypatch, limit, expected):
    """A small network would only feel the page faults."""
    calls = []

    class Library:
        """A C library that notes what it is told."""

        @staticmethod
        def mallopt(what, value):
            """Success."""
            calls.append((what, value))
            return 1

    monkeypatch.setattr(memory, "LARGE_NETWORK", limit)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    memory.return_freed_memory(nn.Linear(4, 4))
    assert expected == calls


def test_other_c_libraries_are_left_alone(monkeypatch):
    """Musl and macOS have no mallopt."""
    monkeypatch.setattr(memory, "LARGE_NETWORK", 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    memory.return_freed_memory(nn.Linear(4, 4))
