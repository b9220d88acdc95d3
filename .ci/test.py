"""Runs the tests of all distributions in one pytest, and says which distribution failed.

    python .ci/test.py [PYTEST ARGUMENT ...] [FOLDER ...]

Folders such as `reports` or `plugins/tfq-bench-cpu` at the end limit it to these; `.` is the host.
Each also passes alone, by `pytest` in its folder; together torch is imported once a process, not
nine times. With `-n` a file's tests stay in one process, which makes what they share once.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from distributions import ROOT, distributions

TOGETHER = ("-c", "pyproject.toml", "--dist", "loadfile", "--no-loadscope-reorder")


class Tally:
    """What came of the tests of each folder."""

    def __init__(self, folders: list[Path]) -> None:
        # The host's name is a prefix of nothing: its tests are those of no other folder.
        self._folders = sorted(folders, key=lambda folder: -len(folder.parts))
        self._seconds: Counter[Path] = Counter()
        self._outcomes: dict[Path, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts one phase of one test."""
        path = Path(report.nodeid.partition("::")[0])
        folder = next(one for one in self._folders if path.is_relative_to(one))
        self._seconds[folder] += report.duration
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[folder][report.outcome] += 1

    def lines(self) -> tuple[list[str], bool]:
        """A line a folder, and whether all passed. One without tests has failed."""
        lines, passed = [], True
        for folder in reversed(self._folders):
            found = self._outcomes[folder]
            good = found["passed"] > 0 and not found["failed"]
            passed &= good
            counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(found.items()))
            word = "passed" if good else "FAILED"
            lines.append(
                f"{word:<8}{self._seconds[folder]:6.0f} s  {folder}: {counts or 'no tests'}"
            )
        return lines, passed


def main(arguments: list[str]) -> int:
    """The exit code: 0 when every distribution passed."""
    known = [folder.relative_to(ROOT) for folder in distributions()]
    chosen: list[Path] = []
    while arguments and Path(arguments[-1]) in known:
        chosen.insert(0, Path(arguments.pop()))
    tally = Tally(chosen or known)
    os.chdir(ROOT)
    sys.path.insert(0, "")  # as `python -m pytest` does
    tests = [str(folder / "tests") for folder in chosen or known]
    code = pytest.main([*TOGETHER, *arguments, *tests], plugins=[tally])
    lines, passed = tally.lines()
    print("\n" + "\n".join(lines))
    return int(code) or int(not passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
