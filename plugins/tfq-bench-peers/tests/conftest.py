"""What all tests of the contestants share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tfq_bench.testing.plugin_host import plugin_host

__all__ = ["plugin_host"]
