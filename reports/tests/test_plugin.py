"""The entry point offers the renderer and costs nothing to import."""

import subprocess
import sys


def test_host_creates_the_renderer(plugin_host):
    """The host discovers `html` and `history` and can make them."""
    plugin_host.install("reports", "tfq_bench_reports.plugin", distribution="tfq-bench-reports")
    table = plugin_host.discover()
    provider = table.get("renderer", "html")
    assert ".html" == provider.suffix
    assert callable(table.create(provider).render)
    provider = table.get("renderer", "history")
    assert ("history", ".html") == (provider.renders, provider.suffix)
    assert callable(table.create(provider).render)


def test_import_is_light():
    """Listing plugins must not pay for Jinja, numpy or torch."""
    code = (
        "import sys, tfq_bench_reports.plugin; "
        "print(sorted({'jinja2', 'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == found.stdout.strip()
