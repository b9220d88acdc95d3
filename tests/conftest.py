"""Fixtures of the host's own tests."""

import os

# Before torch is imported: tiny networks gain nothing from threads, and busy machines lose a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Imported, not named in `pytest_plugins`: that is refused below the root folder of a checkout.
from tfq_bench.testing.plugin_host import plugin_host

__all__ = ["plugin_host"]
