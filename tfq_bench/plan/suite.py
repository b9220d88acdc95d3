"""A suite file (TOML) becomes a `SuiteSpec`.

A suite says what is asked: models × quantizers × backends × seeds, how to sample, calibrate, time
and judge; its keys are in `suite_format`. Names of providers and their own options are checked when
the plan is made, because only then is it known what is installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tfq_bench.errors import SuiteError, locating, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.plan.suite_format import (
    AXES,
    EXCLUDE_KEYS,
    MARKS,
    MAX_BYTES,
    NAME,
    SCHEMA,
    SECTIONS,
    TOP,
    absurd,
)
from tfq_bench.plan.suite_values import with_values
from tfq_bench.types import GivenValue, parse_options, quoted

__all__ = ["Entry", "Exclude", "SuiteSpec", "load_suite", "packaged_suites", "parse_suite"]

MAX_TABLES = 500
"""`[[...]]` of one kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One `[[model]]`, `[[quantizer]]`, `[[backend]]` or `[[metric]]` as it stands in the file.

    Args:
        name: provider name, or `distribution:name`.
        given: every other key; validated against the provider when the plan is made.
        optional: a backend that may be left out where the machine cannot run it.
        standby: a backend for what no other one of the suite can execute.
    """

    name: str
    given: Mapping[str, Any]
    optional: bool = False
    standby: bool = False


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
    sampling: Mapping[str, GivenValue]
    calibration: Mapping[str, GivenValue]
    timing: Mapping[str, GivenValue]
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


def load_suite(name_or_path: str, values: Sequence[str] = ()) -> SuiteSpec:
    """The packaged suite of that name, or the suite file at that path.

    Args:
        values: what is to be otherwise, see `with_values`; the suite's text then says so.

    Raises:
        SuiteError: no such suite, unreadable file, malformed TOML or an invalid key.
        UsageError: a value that has no place in it.
    """
    text, where, folder = _found(name_or_path)
    spec = parse_suite(text, where, folder)
    if not values:
        return spec
    return parse_suite(with_values(text, values), f"{where} with --set", folder)


def _found(name_or_path: str) -> tuple[str, str, Path]:
    """Text of a suite, what messages call it, and what its relative paths are relative to."""
    packaged = packaged_suites()
    if name_or_path in packaged:
        return packaged[name_or_path], f"suite '{name_or_path}'", Path.cwd()
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
    return text, str(path), path.resolve().parent


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
    if fault := absurd(text):
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
    sections = {name: _section(data, name, where) for name in SECTIONS}
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


def _section(data: Mapping[str, Any], name: str, where: str) -> dict[str, GivenValue]:
    found = parse_options(SECTIONS[name], _table(data, name, where), f"{where} [{name}]")
    return {key: value for key, value in found.items() if value is not None}  # all have defaults


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
        marks = MARKS if axis == "backend" else ()
        marked = {mark: given.pop(mark, False) for mark in marks}
        for mark, value in marked.items():
            if not isinstance(value, bool):
                raise SuiteError(
                    f"{where} [[{axis}]] '{name}': '{mark}' must be true or false, "
                    f"found {quoted(value)}.",
                    component=f"{axis} '{name}'",
                    key=mark,
                    found=value,
                )
        entries.append(Entry(name=name, given=given, **marked))
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
