"""`tfq-bench status`: how far a run is, from its folder alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tfq_bench.stats.results import CellResults
from tfq_bench.store.baseline import run_facts
from tfq_bench.store.run import RunFolder

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "status"
HELP = "Show how far a run is. Needs none of its plugins, and does not disturb it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run and `--json`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def execute(args: argparse.Namespace) -> int:
    """Prints a line per cell."""
    folder = RunFolder.open(args.run)
    facts = run_facts(folder)
    cells = [
        _cell(folder, cell, found)
        for cell, found in zip(folder.plan()["cells"], facts, strict=True)
    ]
    if args.json:
        print(json.dumps({"run": str(folder.path), "cells": cells}, indent=2))
        return 0
    from tfq_bench.output.summary import broken_images
    from tfq_bench.output.terminal import table

    headers = ["cell", "label", "status", "results", "reason"]
    rows = [
        [c["key"], c["label"], c["status"], f"{c['finished']}/{c['all']}", c["reason"] or ""]
        for c in cells
    ]
    for line in broken_images(folder.records()):
        print(line)
    print(table(headers, rows))
    return 0


def _cell(folder: RunFolder, cell: dict[str, Any], facts: CellResults) -> dict[str, Any]:
    """Results are counted by artefacts; finished is what a gate or a baseline takes as finished."""
    parts = [
        (stage, key)
        for stage, keys in cell["keys"].items()
        for key in (keys if isinstance(keys, list) else [keys])
        if key is not None
    ]
    finished = sum(folder.artefacts.has(stage, key) for stage, key in parts)
    status, reason = ("finished" if facts.status == "ok" else facts.status), facts.reason
    if status == "failed" and not facts.failed_metrics:
        reason = f"{facts.stage or 'somewhere'}: {facts.reason}"
    elif facts.failed_metrics:
        status = "failed"
        reason = "; ".join(f"metric '{m}': {why}" for m, why in facts.failed_metrics.items())
    elif status == "unfinished" and finished < len(parts):
        reason = None  # the count says it
    elif status == "unfinished":
        reason = f"{facts.reason}; run the suite again, nothing is computed twice"
    return {
        "key": cell["key"],
        "label": cell["label"],
        "status": status,
        "reason": reason,
        "finished": finished,
        "all": len(parts),
    }
