"""A suite file (TOML) becomes a `SuiteSpec`.

A suite says what is asked: models × quantizers × backends × seeds, how to sample, calibrate, time
and judge. Every key is described once, by an `Option`; the JSON schema is made from the same
descriptions (`python -m tfq_bench.schemas` writes it). Names of providers and their own options are
checked when the plan is made, because only then is it known what is installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tfq_bench.errors import SuiteError, locating, nearest
from tfq_bench.foreign import printable
from tfq_bench.providers import Option, OptionValue, parse_options, quoted

__all__ = [
    "Entry",
    "Exclude",
    "SuiteSpec",
    "json_schema",
    "load_suite",
    "packaged_suites",
    "parse_suite",
]

SCHEMA = 1

MOST = 1_000_000
"""Of anything that is counted: ten times what any published evaluation takes."""

MAX_BYTES = 1 << 17
"""Of a suite file; the largest of ours has 3,000. The TOML parser's time and memory grow faster."""

MAX_DEPTH = 16
"""Nesting, and parts of a dotted key. A suite needs three."""

MAX_TABLES = 500
"""`[[...]]` of one kind."""

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
TOP = ("schema", *SECTIONS, *AXES, "seeds", "exclude")
EXCLUDE_KEYS = ("model", "quantizer", "scheme", "backend", "reason")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One `[[model]]`, `[[quantizer]]`, `[[backend]]` or `[[metric]]` as it stands in the file.

    Args:
        name: provider name, or `distribution:name`.
        given: every other key; validated against the provider when the plan is made.
        optional: a backend that may be left out where the machine cannot run it.
    """

    name: str
    given: Mapping[str, Any]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude:
    """Cells the suite leaves out: shell-style patterns that must all match."""

    patterns: Mapping[str, str]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSpec:
    """A suite as asked, before anything installed is looked at."""

    name: str
    summary: str
    device: str
    threads: int
    models: tuple[Entry, ...]
    quantizers: tuple[Entry, ...]
    backends: tuple[Entry, ...]
    metrics: tuple[Entry, ...]
    seeds: tuple[int, ...]
    sampling: Mapping[str, OptionValue]
    calibration: Mapping[str, OptionValue]
    timing: Mapping[str, OptionValue]
    excludes: tuple[Exclude, ...]
    folder: Path
    text: str


def packaged_suites() -> dict[str, str]:
    """Text of every suite that ships with the host, by name."""
    folder = resources.files("tfq_bench") / "suites"
    return {
        item.name.removesuffix(".toml"): item.read_text("utf-8")
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".toml")
    }


def load_suite(name_or_path: str) -> SuiteSpec:
    """The packaged suite of that name, or the suite file at that path.

    Raises:
        SuiteError: no such suite, unreadable file, malformed TOML or an invalid key.
    """
    packaged = packaged_suites()
    if name_or_path in packaged:
        return parse_suite(packaged[name_or_path], f"suite '{name_or_path}'", Path.cwd())
    path = Path(name_or_path)
    try:
        if path.suffix != ".toml" and not path.exists():
            raise SuiteError(
                f"no packaged suite and no file is called '{name_or_path}'; "
                f"{nearest(name_or_path, packaged)} A path to a .toml file works too.",
                found=name_or_path,
            )
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise SuiteError(f"cannot read the suite {path}: {cause}.", file=path) from error
    return parse_suite(text, str(path), path.resolve().parent)


def parse_suite(text: str, where: str, folder: Path) -> SuiteSpec:
    """A suite from TOML text.

    Args:
        where: what messages call the file. folder: what relative paths in it are relative to.

    Raises:
        SuiteError: malformed TOML, an unknown key (with the nearest names), a value of another
            type or out of range.
    """
    with locating(file=where):
        return _parse(text, where, folder)


def _parse(text: str, where: str, folder: Path) -> SuiteSpec:
    if fault := _absurd(text):
        raise SuiteError(f"{where}: {fault}. A suite is a few kilobytes; is this the right file?")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beyond TOMLDecodeError: absurd numbers, depth
        raise SuiteError(f"{where}: not valid TOML: {printable(error, 200)}.") from error
    for key in data:
        if key not in TOP:
            raise SuiteError(
                f"{where}: unknown key '{printable(key, 80)}'; {nearest(key[:80], TOP)}",
                key=key,
            )
    schema = data.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        found = "no such key" if schema is None else quoted(schema)
        raise SuiteError(
            f"{where}: expected 'schema = {SCHEMA}' at the top, found {found}; "
            "this version of tfq-bench reads no other.",
            key="schema",
            expected=SCHEMA,
            found=schema,
        )
    sections = {
        name: parse_options(options, _table(data, name, where), f"{where} [{name}]")
        for name, options in SECTIONS.items()
    }
    head = sections["suite"]
    if not head["name"]:
        raise SuiteError(
            f"{where} [suite]: 'name' is missing; it names the run folder.", key="name"
        )
    if not re.fullmatch(NAME, str(head["name"])):
        raise SuiteError(
            f"{where} [suite]: 'name' names the run folder, so it must be letters, digits, '.', "
            f"'_' and '-', at most 100, found {quoted(head['name'])}.",
            key="name",
            found=head["name"],
        )
    entries = {axis: _entries(data, axis, where) for axis in AXES}
    for axis in ("model", "quantizer", "metric"):
        if not entries[axis]:
            raise SuiteError(f"{where}: at least one [[{axis}]] is needed.", key=axis)
    return SuiteSpec(
        name=str(head["name"]),
        summary=str(head["summary"]),
        device=str(head["device"]),
        threads=int(head["threads"]),
        models=entries["model"],
        quantizers=entries["quantizer"],
        backends=entries["backend"],
        metrics=entries["metric"],
        seeds=_seeds(data.get("seeds", [0]), where),
        sampling=sections["sampling"],
        calibration=sections["calibration"],
        timing=sections["timing"],
        excludes=_excludes(data, where),
        folder=folder,
        text=text,
    )


def _absurd(text: str) -> str:
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


def _table(data: Mapping[str, Any], name: str, where: str) -> dict[str, object]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise SuiteError(
            f"{where}: '{name}' must be a table [{name}], found {quoted(table)}.",
            key=name,
            found=table,
        )
    for key in ("schema", "seeds"):
        if key in table:
            raise SuiteError(
                f"{where} [{name}]: '{key}' belongs to the top of the file, above every table.",
                key=key,
            )
    return table


def _tables(data: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    tables = data.get(name, [])
    if isinstance(tables, list) and len(tables) > MAX_TABLES:
        raise SuiteError(
            f"{where}: at most {MAX_TABLES} [[{name}]] are allowed, found {len(tables)}.",
            key=name,
            expected=MAX_TABLES,
            found=len(tables),
        )
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SuiteError(
            f"{where}: '{name}' must be a list of tables [[{name}]], found {quoted(tables)}.",
            key=name,
            found=tables,
        )
    return tables


def _entries(data: Mapping[str, Any], axis: str, where: str) -> tuple[Entry, ...]:
    entries = []
    for number, table in enumerate(_tables(data, axis, where), 1):
        given = dict(table)
        if "name" not in given:
            raise SuiteError(f"{where} [[{axis}]] number {number}: 'name' is missing.", key="name")
        name = given.pop("name")
        if not isinstance(name, str):
            raise SuiteError(
                f"{where} [[{axis}]] number {number}: 'name' must be text, found {quoted(name)}.",
                key="name",
                found=name,
            )
        optional = given.pop("optional", False) if axis == "backend" else False
        if not isinstance(optional, bool):
            raise SuiteError(
                f"{where} [[{axis}]] '{name}': 'optional' must be true or false, "
                f"found {quoted(optional)}.",
                component=f"{axis} '{name}'",
                key="optional",
                found=optional,
            )
        entries.append(Entry(name=name, given=given, optional=optional))
    return tuple(entries)


def _seeds(value: object, where: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or not value
        or any(not isinstance(v, int) or isinstance(v, bool) or v < 0 for v in value)
        or len(set(value)) != len(value)
    ):
        raise SuiteError(
            f"{where}: 'seeds' must be a list of distinct whole numbers from 0, "
            f"found {quoted(value)}.",
            key="seeds",
            found=value,
        )
    return tuple(value)


def _excludes(data: Mapping[str, Any], where: str) -> tuple[Exclude, ...]:
    excludes = []
    for table in _tables(data, "exclude", where):
        for key, value in table.items():
            if key not in EXCLUDE_KEYS:
                raise SuiteError(
                    f"{where} [[exclude]]: unknown key '{printable(key, 80)}'; "
                    f"{nearest(key[:80], EXCLUDE_KEYS)}",
                    key=key,
                )
            if not isinstance(value, str):
                raise SuiteError(
                    f"{where} [[exclude]]: '{key}' must be text, found {quoted(value)}.",
                    key=key,
                    found=value,
                )
        patterns = {key: value for key, value in table.items() if key != "reason"}
        if not patterns or not table.get("reason"):
            raise SuiteError(
                f"{where} [[exclude]]: a pattern and a 'reason' are needed.", key="exclude"
            )
        excludes.append(Exclude(patterns=patterns, reason=table["reason"]))
    return tuple(excludes)


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
    optional = {"type": "boolean", "description": "Leave it out where the machine lacks it."}
    properties["backend"] = {
        "type": "array",
        "items": {**entry, "properties": {**entry["properties"], "optional": optional}},
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
