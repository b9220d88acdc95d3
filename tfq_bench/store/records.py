"""`records.jsonl`: one JSON line per fact, appended and never rewritten.

Every line ends with a checksum over itself and the checksum of the line before. A number that was
edited, a line that was lost, doubled or moved is therefore found; a line that a crash tore off at
the end is the only damage that is healed. Lines lost at the end leave their cells unfinished,
because every record says how many of its kind there are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.store.disk import store_error, sync_folder
from tfq_bench.store.record_json import (
    SCHEMA,
    json_number,
    metric_from_json,
    metric_to_json,
    record_from_json,
    record_to_json,
)
from tfq_bench.types import Record

__all__ = [
    "SCHEMA",
    "append",
    "json_number",
    "metric_from_json",
    "metric_to_json",
    "put_aside_damaged",
    "read",
    "record_from_json",
    "record_to_json",
]

_CHECK = re.compile(rb',"check":"([0-9a-f]{16})"\}\Z')

log = logging.getLogger("tfq_bench.store")


class _Damaged(StoreError):
    """A line that is not as it was written."""


def append(path: Path, records: Iterable[Record]) -> None:
    """Adds records at the end of `path` in one durable write; several processes may do so.

    A last line torn by a crash is removed first.

    Raises:
        StoreError: disk full, no permission; a record that no reader would take; the last line is
            damaged. The file is then as it was.
    """
    bodies = [_body(record) for record in records]
    if not bodies:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end, check = _repair_tail(descriptor, path)
            lines = []
            for body in bodies:
                check = _checksum(check, body)
                lines.append(body + b',"check":"%b"}\n' % check)
            try:
                _write(descriptor, b"".join(lines), end)
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if end == 0:
            sync_folder(path.parent)
    except OSError as error:
        raise store_error(error, path) from error


def read(path: Path, keep: Callable[[Record], bool] | None = None) -> tuple[Record, ...]:
    """The latest record per (cell, metric), sorted by (label, cell, metric).

    A failure or skip is left out when later records of its cell are ok, and the failure of a metric
    when later records of its source are. A last line torn by a crash is ignored with a notice in
    the log. A file that does not exist holds no records.

    Args:
        keep: which records count at all; None for every one.

    Raises:
        StoreError: a line that is not as it was written, with its number.
    """
    latest: dict[tuple[str, str, str], Record] = {}
    for record in _lines(path):
        if keep is not None and not keep(record):
            continue
        if record.status == "ok":
            latest.pop((record.cell, "", ""), None)
            latest.pop((record.cell, "", record.source or ""), None)
        latest[record.cell, *_place(record)] = record
    return tuple(sorted(latest.values(), key=lambda r: (r.label, r.cell, *_place(r))))


def put_aside_damaged(path: Path) -> Path | None:
    """Renames a file that is damaged or of another schema, so that a run can make it again.

    Returns:
        Its new name; None when it is whole, or not there.

    Raises:
        StoreError: it cannot be read or renamed.
    """
    try:
        for _ in _lines(path):
            pass
    except _Damaged as error:
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        try:
            path.rename(aside)
            sync_folder(path.parent)
        except OSError as failure:
            raise store_error(failure, path) from failure
        log.warning("%s The file is now '%s'.", error, aside.name)
        return aside
    return None


def _lines(path: Path) -> Iterator[Record]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise store_error(error, path, "read") from error
    lines = content.split(b"\n")
    check = b""
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        found = _CHECK.search(line)
        if found is None and number == len(lines):
            log.warning("%s: ignoring line %d, which is not complete", path, number)
            return
        try:
            if found is None:
                raise StoreError(_what_it_is(line))
            body, stated = line[: found.start()], found[1]
            check = _checksum(check, body)
            if check != stated:
                raise StoreError(
                    f"expected the checksum {stated.decode()}, found {check.decode()}: the line "
                    "was changed, or lines before it were lost, doubled or moved"
                )
            data = parse_json(body + b"}")
            if not isinstance(data, dict):
                raise StoreError(f"expected a record, found {printable(repr(line[:40]), 80)}")
            yield record_from_json(data)
        except (StoreError, ValueError) as error:
            raise _Damaged(
                f"'{path}', line {number}: {error}. Nothing in the file is believed. Run the suite "
                "again: records are made anew from the artefacts, and nothing is computed twice.",
                file=path,
            ) from None


def _what_it_is(line: bytes) -> str:
    """Why a line without a checksum is not a record, in words."""
    try:
        data = parse_json(line)
    except ValueError as error:
        return f"expected a JSON object, found {printable(repr(line[:40]), 80)}; {error}"
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is int and schema != SCHEMA:
        return f"expected a record of schema {SCHEMA}, found {schema}"
    return f"expected a record with its checksum at the end, found {printable(repr(line), 80)}"


def _place(record: Record) -> tuple[str, str]:
    """What a later record of the same cell must share to replace this one."""
    if record.metric is not None:
        return record.metric.definition.name, ""
    return "", record.source or ""


def _body(record: Record) -> bytes:
    """The record's line up to its checksum, which readers are known to take."""
    data = record_to_json(record)
    try:
        record_from_json(data)
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        parse_json(text)
    except (StoreError, ValueError, TypeError, RecursionError) as error:
        name = "" if record.metric is None else f", metric {record.metric.definition.name!r}"
        raise StoreError(
            f"the record of '{printable(record.label, 120)}'{printable(name, 120)} cannot be "
            f"stored: {error}."
        ) from None
    return text[:-1].encode()


def _checksum(before: bytes, body: bytes) -> bytes:
    return hashlib.sha256(before + b"\n" + body).hexdigest()[:16].encode()


def _repair_tail(descriptor: int, path: Path) -> tuple[int, bytes]:
    """Ends or removes a last line without its newline.

    Returns:
        The offset where the next line goes, and the checksum of the line before it.
    """
    end = os.fstat(descriptor).st_size
    tail = _last_line(descriptor, end)
    if tail and not tail.endswith(b"\n"):
        if _CHECK.search(tail):
            _write(descriptor, b"\n", end)
            tail, end = tail + b"\n", end + 1
        else:
            log.warning("%s: removing a last line that is not complete", path)
            end -= len(tail)
            os.ftruncate(descriptor, end)
            tail = _last_line(descriptor, end)
    if not tail:
        return end, b""
    found = _CHECK.search(tail[:-1])
    if found is None:
        raise StoreError(
            f"'{path}': the last line is no record of schema {SCHEMA}. Run the suite again: "
            "records are made anew from the artefacts, and nothing is computed twice.",
            file=path,
        )
    return end, found[1]


def _last_line(descriptor: int, end: int) -> bytes:
    """The last line that is not empty, with its newline if it has one; empty without a line."""
    start, tail = end, b""
    while start > 0 and b"\n" not in tail.rstrip(b"\n"):
        step = min(start, 65536)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    ended = b"\n" if tail.endswith(b"\n") else b""
    line = tail.rstrip(b"\n").rpartition(b"\n")[2]
    return line + ended if line else b""


def _write(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
