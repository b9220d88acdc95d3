"""Run folders whose cells lowered products that are given."""

from __future__ import annotations

import json
from pathlib import Path

from tfq_bench.store import RunFolder

__all__ = ["entries", "run_of"]


def run_of(path: Path, *details: dict | None, backend: str = "cuda") -> Path:
    """A run at `path` with a cell for each; None for one that is not lowered yet."""
    folder = RunFolder.prepare(path)
    cells = [_cell(f"c{number}", backend, f"l{number}") for number in range(len(details))]
    plan = {"schema": 2, "id": "p", "suite": {"name": "s"}, "shards": [], "cells": cells}
    folder.write("", plan)
    for number, content in enumerate(details):
        if content is not None:
            with folder.artefacts.create("lower", f"l{number}") as made:
                (made / "result.json").write_text(json.dumps({"details": content}))
    return folder.path


def entries(*products, count=1) -> dict:
    """Details of a lowered network."""
    tile = {"m": 64, "n": 64, "k": 32, "stages": 4, "threads": 128, "whole_rows": True}
    return {"products": [{**one.to_json(), "tile": tile, "count": count} for one in products]}


def _cell(key: str, backend: str, lower: str) -> dict:
    """One cell of a `plan.json`."""
    stages = {"calibrate": None, "quantize": "q", "measure": None, "sample": [], "evaluate": []}
    return {
        "key": key,
        "label": key,
        "variant": "",
        "axes": {"backend": backend},
        "status": "planned",
        "reason": None,
        "execution": "lowered",
        "reference": None,
        "plugins": [],
        "keys": {**stages, "lower": lower},
        "made_of": {},
    }
