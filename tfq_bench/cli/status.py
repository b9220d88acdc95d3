"""`tfq-bench status`: how far a run is, from its folder alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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
    cells = [_cell(folder, cell) for cell in folder.plan()["cells"]]
    _add_failures(folder, cells)
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


def _cell(folder: RunFolder, cell: dict[str, Any]) -> dict[str, Any]:
    parts = [
        (stage, key)
        for stage, keys in cell["keys"].items()
        for key in (keys if isinstance(keys, list) else [keys])
        if key is not None
    ]
    finished = sum(folder.artefacts.has(stage, key) for stage, key in parts)
    if cell["status"] == "skipped":
        status = "skipped"
    elif finished == len(parts):
        status = "finished"
    else:
        status = "unfinished"
    return {
        "key": cell["key"],
        "label": cell["label"],
        "status": status,
        "reason": cell["reason"],
        "finished": finished,
        "all": len(parts),
    }


def _add_failures(folder: RunFolder, cells: list[dict[str, Any]]) -> None:
    failed: dict[str, list[str]] = {}
    for record in folder.records():
        if record.status == "failed":
            where = str(record.stage)
            if record.failed_metric is not None:
                where = f"metric '{record.failed_metric}'"
            failed.setdefault(record.cell, []).append(f"{where}: {record.reason}")
    for cell in cells:
        if cell["status"] == "unfinished" and cell["key"] in failed:
            cell.update(status="failed", reason="; ".join(failed[cell["key"]]))
