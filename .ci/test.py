"""Runs pytest in every distribution, each with its own configuration, and says which failed.

    python .ci/test.py [PYTEST ARGUMENT ...] [FOLDER ...]

Folders such as `reports` or `plugins/tfq-bench-cpu` at the end limit it to these; `.` is the host.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from distributions import ROOT, distributions


def main(arguments: list[str]) -> int:
    """The exit code: 0 when every distribution passed. One without tests has failed."""
    known = {folder.relative_to(ROOT): folder for folder in distributions()}
    chosen = []
    while arguments and Path(arguments[-1]) in known:
        chosen.insert(0, Path(arguments.pop()))
    lines, failed = [], False
    for name in chosen or known:
        print(f"\n== {name}: pytest {' '.join(arguments)}", flush=True)
        start = time.monotonic()
        code = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], cwd=known[name]
        ).returncode
        seconds = time.monotonic() - start
        lines.append(f"{'passed' if code == 0 else f'FAILED ({code})':<12}{seconds:6.0f} s  {name}")
        failed |= code != 0
    print("\n" + "\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
