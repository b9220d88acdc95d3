"""Whether two runs of one suite hold the same numbers, bit for bit; timings and memory aside.

    tfq-bench run .ci/same_numbers.toml --run before --no-report
    python .ci/same_numbers.py before after

Reads the lines of `records.jsonl` as they are, so that runs of different versions (and schemas) can
be held against each other: what a change of the code did to figures. Exit code 1 when one differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PARTS = ("value", "interval", "replicates", "series", "n")


def main(first: Path, second: Path) -> int:
    """Prints every difference and the counts; 1 when there is one."""
    before, after = numbers(first), numbers(second)
    different = 0
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        different += 1
        if old is None or new is None:
            print(f"only in {second if old is None else first}: {' · '.join(key)}")
        else:
            parts = ", ".join(
                f"{part} {old[part]!r:.60} -> {new[part]!r:.60}"
                for part in PARTS
                if old[part] != new[part]
            )
            print(f"{' · '.join(key)}: {parts}")
    print(f"{len(before.keys() & after.keys())} numbers in both, {different} differences")
    return int(different > 0)


def numbers(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What counts of the latest record per (cell's label, metric's name)."""
    found = {}
    for line in (run / "records.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        metric = record["metric"]
        if metric is not None and not metric["volatile"]:
            found[record["label"], metric["name"]] = {part: metric[part] for part in PARTS}
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
