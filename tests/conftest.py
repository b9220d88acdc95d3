"""Fixtures of the host's own tests."""

# Imported, not named in `pytest_plugins`: that is refused below the root folder of a checkout.
from tfq_bench.testing.plugin_host import plugin_host

__all__ = ["plugin_host"]
