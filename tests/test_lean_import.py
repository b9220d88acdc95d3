"""What must start fast imports nothing heavy."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "pandas", "numpy", "scipy", "safetensors", "diffusers")


@pytest.mark.parametrize(
    "statement",
    [
        "import tfq_bench, tfq_bench.api",
        "import tfq_bench.host.plugins; tfq_bench.host.plugins.discover(block=['*'])",
        "import tfq_bench.plan.suite, tfq_bench.plan.plan, tfq_bench.keys",
        "import tfq_bench.testing.tiny_plugin",
        "from tfq_bench.cli import main; main(['--no-plugins', 'plugins', 'list'])",
        "from tfq_bench.cli import main; main(['--help'])",
        "from tfq_bench.cli import main; main(['--no-plugins', 'assets', 'list', '--json'])",
    ],
)
def test_nothing_heavy_is_imported(statement):
    """Neither torch nor pandas nor numpy is loaded by listing, planning types or help."""
    report = f"import json, sys; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [] == json.loads(done.stdout.splitlines()[-1])
