"""The entry point: light, and pointing at what fits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfq_bench.host.discovery.factories import factory_faults
from tfq_bench_metrics.plugin import tfq_metrics

LEAN = """
import sys
import tfq_bench_metrics.plugin, tfq_bench_metrics.clip_files, tfq_bench_metrics.lpips_files
print([name for name in ("torch", "numpy", "transformers") if name in sys.modules])
"""


def test_entry_point_and_assets_import_nothing_heavy():
    """Listing plugins and assets must stay cheap."""
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("provider", list(tfq_metrics()), ids=lambda provider: provider.name)
def test_factories_and_assets_fit(provider):
    """The factory takes the options that the provider declares, and assets are assets."""
    assert [] == factory_faults(provider, "tfq_bench_metrics.plugin")
