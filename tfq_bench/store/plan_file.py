"""`plan.json`: what a run folder says it holds, sealed and checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import parse_json
from tfq_bench.plan.plan import SCHEMA
from tfq_bench.store.disk import store_error, write_atomically
from tfq_bench.store.seals import FIELD, open_sealed, seal
from tfq_bench.store.shapes import (
    ANYTHING,
    AXES,
    COUNT,
    KEY,
    NUMBER,
    TEXT,
    fields,
    many,
    mapping,
    one_of,
    optional,
)
from tfq_bench.types import Execution

__all__ = ["read_plan", "refuse_later", "write_plan"]

_CELL = fields(
    {
        "key": KEY,
        "label": TEXT,
        "axes": AXES,
        "status": one_of("planned", "skipped"),
        "reason": optional(TEXT),
        "execution": one_of(*get_args(Execution)),
        "reference": optional(KEY),
        "keys": fields(
            {"evaluate": many(KEY)},
            {
                "calibrate": optional(KEY),
                "quantize": KEY,
                "lower": KEY,
                "sample": many(KEY),
                "measure": optional(KEY),
            },
        ),
    },
    {"variant": optional(TEXT), "plugins": many(TEXT)},
    loose=True,
)

_PLAN = fields(
    {
        "schema": COUNT,
        "id": TEXT,
        "suite": fields({"name": TEXT}, {"summary": TEXT, "device": TEXT}, loose=True),
        "shards": many(many(COUNT, length=2)),
        "cells": many(_CELL),
    },
    {
        "folder": TEXT,
        "sampling": mapping(ANYTHING, {"images": COUNT, "steps": COUNT}),
        "calibration": mapping(ANYTHING),
        "timing": mapping(ANYTHING),
        "metrics": many(fields({"name": TEXT}, loose=True)),
        "gmac": mapping(NUMBER),
    },
    loose=True,
)


def write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Writes a plan with its checksum; StoreError when it cannot be written."""
    sealed = {**plan, FIELD: seal(plan)}
    write_atomically(path, json.dumps(sealed, indent=1, allow_nan=False) + "\n")


def refuse_later(path: Path) -> None:
    """Refuses to write over what a later version knows better; any other file may be replaced.

    Raises:
        StoreError: the plan is of a later schema, or cannot be read.
    """
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise store_error(error, path, "read") from error
    except ValueError:
        return
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise StoreError(
            f"'{path}': expected a plan of schema {SCHEMA} at most, found {schema}. Use the "
            "version of tfq-bench that wrote it, or choose another folder.",
            file=path,
            expected=SCHEMA,
            found=schema,
        )


def read_plan(path: Path) -> dict[str, Any]:
    """The plan in a file.

    Raises:
        StoreError: it cannot be read, is of another schema, or is not as it was written.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise store_error(error, path, "read") from error
    try:
        return open_sealed(text, schema=SCHEMA, shape=_PLAN)
    except ValueError as error:
        raise StoreError(
            f"'{path}' is no plan that can be used: {error}. Run the suite again in this folder: "
            "the plan is written anew, artefacts are kept, and nothing is computed twice.",
            file=path,
        ) from error
