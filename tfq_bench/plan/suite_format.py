"""What a suite file may hold: its keys, each described once, and the JSON schema made of them."""

from __future__ import annotations

import re
from typing import Any

from tfq_bench.types import Option

__all__ = [
    "AXES",
    "CALIBRATION",
    "EXCLUDE_KEYS",
    "MARKS",
    "MAX_BYTES",
    "NAME",
    "SCHEMA",
    "SECTIONS",
    "TIMING",
    "TOP",
    "absurd",
    "json_schema",
]

SCHEMA = 1

MOST = 1_000_000
"""Of anything that is counted: ten times what any published evaluation takes."""

MAX_BYTES = 1 << 17
"""Of a suite file; the largest of ours has 3,000. The TOML parser's time and memory grow faster."""

MAX_DEPTH = 16
"""Nesting, and parts of a dotted key. A suite needs three."""

_TOKEN = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[\[\]{}.,=\n]""")


def _count(name: str, default: int, text: str, *, minimum: int = 1) -> Option:
    return Option(name=name, kind="int", default=default, minimum=minimum, maximum=MOST, help=text)


HEAD = (
    Option(name="name", kind="str", default="", help="Name of the suite and of its run folder."),
    Option(name="summary", kind="str", default="", help="One line for listings."),
    Option(
        name="device",
        kind="str",
        default="cpu",
        choices=("cpu", "cuda"),
        help="Where networks run.",
    ),
    Option(
        name="threads",
        kind="int",
        default=2,
        minimum=1,
        maximum=1024,
        help="CPU threads of each task; fixed by the suite, because sums may depend on it.",
    ),
)
SAMPLING = (
    Option(name="sampler", kind="str", default="", help="Empty for the model's default."),
    Option(name="steps", kind="int", default=20, minimum=1, maximum=10_000, help="Sampler steps."),
    Option(
        name="images",
        kind="int",
        default=64,
        minimum=2,
        maximum=MOST,
        help="Images per cell, exactly.",
    ),
    _count("batch", 16, "Images per network call."),
    _count("shard", 64, "Images per task."),
    Option(name="seed", kind="int", default=0, minimum=0, help="Of the noise; shared by cells."),
)
CALIBRATION = (
    _count("images", 32, "Images that may be captured."),
    _count("batch", 16, "Images per network call."),
    Option(name="seed", kind="int", default=1, minimum=0, help="Of the calibration noise."),
)
TIMING = (
    _count("batch", 8, "Images per timed call."),
    _count("warmup", 2, "Untimed rounds.", minimum=0),
    _count("rounds", 9, "Timed, interleaved rounds.", minimum=3),
)
SECTIONS = {"suite": HEAD, "sampling": SAMPLING, "calibration": CALIBRATION, "timing": TIMING}
AXES = ("model", "quantizer", "backend", "metric")
MARKS = {
    "optional": "Leave it out where the machine lacks it.",
    "standby": "For what no other backend of the suite can execute.",
}
"""What a suite says of a backend, true or false."""

TOP = ("schema", *SECTIONS, *AXES, "seeds", "exclude")
EXCLUDE_KEYS = ("model", "quantizer", "scheme", "backend", "reason")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def absurd(text: str) -> str:
    """Why a text is refused before the parser sees it, empty when it is not."""
    if len(text) > MAX_BYTES:
        return f"it has more than {MAX_BYTES:,} bytes"
    depth = dots = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == ".":
            dots += 1
        elif token in "[{":
            depth += 1
        elif token in "]}":
            depth = max(depth - 1, 0)
        if token in ",=\n[]{}":
            dots = 0
        if depth > MAX_DEPTH or dots >= MAX_DEPTH:
            return f"its tables are nested more than {MAX_DEPTH} levels deep"
    return ""


def json_schema() -> dict[str, Any]:
    """The JSON schema of suite files, for editors; `schemas/suite.schema.json` is its copy."""
    entry: dict[str, Any] = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}},
    }
    properties: dict[str, Any] = {"schema": {"const": SCHEMA}}
    for name, options in SECTIONS.items():
        properties[name] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {option.name: _option_schema(option) for option in options},
        }
    properties["suite"]["required"] = ["name"]
    properties["suite"]["properties"]["name"]["pattern"] = f"^{NAME}$"
    for axis in AXES:
        properties[axis] = {"type": "array", "items": entry}
    for axis in ("model", "quantizer", "metric"):
        properties[axis] = {**properties[axis], "minItems": 1}
    marks = {mark: {"type": "boolean", "description": text} for mark, text in MARKS.items()}
    properties["backend"] = {
        "type": "array",
        "items": {**entry, "properties": {**entry["properties"], **marks}},
    }
    label = {"type": "string", "description": "Stands behind the names of its values."}
    properties["metric"] = {
        **properties["metric"],
        "items": {**entry, "properties": {**entry["properties"], "label": label}},
    }
    properties["seeds"] = {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"type": "integer", "minimum": 0},
    }
    properties["exclude"] = {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["reason"],
            "minProperties": 2,
            "properties": {
                **{key: {"type": "string"} for key in EXCLUDE_KEYS},
                "reason": {"type": "string", "minLength": 1},
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "TFQ-Bench suite",
        "type": "object",
        "additionalProperties": False,
        "required": ["schema", "suite", "model", "quantizer", "metric"],
        "properties": properties,
    }


def _option_schema(option: Option) -> dict[str, Any]:
    types = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}
    schema: dict[str, Any] = {"type": types[option.kind], "description": option.help}
    if option.name != "name":
        schema["default"] = option.default
    if option.choices:
        schema["enum"] = list(option.choices)
    if option.minimum is not None:
        schema["minimum"] = int(option.minimum)
    if option.maximum is not None:
        schema["maximum"] = int(option.maximum)
    return schema
