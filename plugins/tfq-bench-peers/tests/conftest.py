"""What all tests of the contestants share."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench_peers import sdnq_external
from tfq_bench_peers.sdnq_network import VARIABLE

__all__ = ["plugin_host"]


@pytest.fixture
def stand_in(monkeypatch):
    """The process that SDNQ would run in finds a stand-in for it; this one does not."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "stand_in"), prepend=os.pathsep)
    monkeypatch.delenv(VARIABLE, raising=False)
    sdnq_external._installed.cache_clear()
    yield
    sdnq_external._installed.cache_clear()
