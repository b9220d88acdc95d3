"""Records: one JSON line per fact, appended and never rewritten.

Floats that JSON cannot say stand as the strings `NaN`, `Infinity` and `-Infinity`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfq_bench.border import Interval, MetricDefinition, MetricValue, Record
from tfq_bench.errors import StoreError
from tfq_bench.store.disk import explain, sync_folder

__all__ = [
    "SCHEMA",
    "append",
    "json_number",
    "metric_from_json",
    "metric_to_json",
    "read",
    "record_from_json",
    "record_to_json",
]

SCHEMA = 1

log = logging.getLogger("tfq_bench.store")


def metric_to_json(metric: MetricValue) -> dict[str, Any]:
    """A metric's value and definition as strict JSON data."""
    definition, interval = metric.definition, metric.interval
    return {
        "name": definition.name,
        "unit": definition.unit,
        "direction": definition.direction,
        "summary": definition.summary,
        "parameters": dict(definition.parameters),
        "volatile": definition.volatile,
        "value": json_number(metric.value),
        "n": int(metric.n),
        "interval": None
        if interval is None
        else {
            "low": json_number(interval.low),
            "high": json_number(interval.high),
            "level": float(interval.level),
            "method": interval.method,
        },
        "replicates": [json_number(value) for value in metric.replicates],
        "pairing": metric.pairing,
        "reference": metric.reference,
        "series": {
            name: [json_number(value) for value in curve]
            for name, curve in sorted(metric.series.items())
        },
    }


def metric_from_json(data: Mapping[str, Any]) -> MetricValue:
    """The inverse of `metric_to_json`; KeyError when a field is missing."""
    interval = data["interval"]
    return MetricValue(
        definition=MetricDefinition(
            name=data["name"],
            unit=data["unit"],
            direction=data["direction"],
            summary=data["summary"],
            parameters=data["parameters"],
            volatile=data["volatile"],
        ),
        value=float(data["value"]),
        n=data["n"],
        interval=None
        if interval is None
        else Interval(
            low=float(interval["low"]),
            high=float(interval["high"]),
            level=interval["level"],
            method=interval["method"],
        ),
        replicates=tuple(map(float, data["replicates"])),
        pairing=data["pairing"],
        reference=data["reference"],
        series={name: tuple(map(float, curve)) for name, curve in data["series"].items()},
    )


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as strict JSON data, see `schemas/record.schema.json`."""
    return {
        "schema": SCHEMA,
        "run": record.run,
        "cell": record.cell,
        "label": record.label,
        "axes": dict(record.axes),
        "status": record.status,
        "execution": record.execution,
        "environment": record.environment,
        "plugins": list(record.plugins),
        "metric": None if record.metric is None else metric_to_json(record.metric),
        "definition": record.definition,
        "stage": record.stage,
        "reason": record.reason,
        "reproduce": record.reproduce,
        "log": record.log,
        "source": record.source,
        "source_values": record.source_values,
        "failed_metric": record.failed_metric,
    }


def record_from_json(data: Mapping[str, Any]) -> Record:
    """The inverse of `record_to_json`.

    Raises:
        StoreError: another schema number, or a field is missing.
    """
    if data.get("schema") != SCHEMA:
        raise StoreError(
            f"expected a record of schema {SCHEMA}, found {data.get('schema')!r}. "
            "Use the version of tfq-bench that wrote it."
        )
    try:
        return Record(
            run=data["run"],
            cell=data["cell"],
            label=data["label"],
            axes=data["axes"],
            status=data["status"],
            execution=data["execution"],
            environment=data["environment"],
            plugins=tuple(data["plugins"]),
            metric=None if data["metric"] is None else metric_from_json(data["metric"]),
            definition=data["definition"],
            stage=data["stage"],
            reason=data["reason"],
            reproduce=data["reproduce"],
            log=data["log"],
            source=data["source"],
            source_values=data["source_values"],
            failed_metric=data["failed_metric"],
        )
    except KeyError as error:
        raise StoreError(f"a record lacks the field {error}.") from None


def append(path: Path, records: Iterable[Record]) -> None:
    """Adds records at the end of `path` in one durable write; several processes may do so.

    A last line torn by a crash is removed first.

    Raises:
        StoreError: disk full, no permission; the file is then as it was.
    """
    lines = "".join(
        json.dumps(record_to_json(record), allow_nan=False, separators=(",", ":")) + "\n"
        for record in records
    ).encode()
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _heal(descriptor, path)
            try:
                _write(descriptor, lines, end)
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if end == 0:
            sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error


def read(path: Path) -> tuple[Record, ...]:
    """The latest record per (cell, metric), sorted by (label, cell, metric).

    A failure or skip is left out when later records of its cell are ok, and the failure of a metric
    when later records of its source are. A last line torn by a
    crash is ignored with a notice in the log. A file that does not exist holds no records.

    Raises:
        StoreError: a line that is not a record of this schema, with its number.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise explain(error, path, "read") from error
    latest: dict[tuple[str, str, str], Record] = {}
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        data = _parse(line)
        if data is None:
            if number == len(lines):
                log.warning("%s: ignoring line %d, which is not complete", path, number)
                continue
            raise StoreError(
                f"'{path}', line {number}: expected a JSON object, found {line[:40]!r}. "
                "Delete the line; the next run writes what is missing."
            )
        try:
            record = record_from_json(data)
        except StoreError as error:
            raise StoreError(f"'{path}', line {number}: {error}") from None
        if record.status == "ok":
            latest.pop((record.cell, "", ""), None)
            latest.pop((record.cell, "", record.source or ""), None)
        latest[record.cell, *_place(record)] = record
    return tuple(sorted(latest.values(), key=lambda r: (r.label, r.cell, *_place(r))))


def _place(record: Record) -> tuple[str, str]:
    """What a later record of the same cell must share to replace this one."""
    if record.metric is not None:
        return record.metric.definition.name, ""
    return "", record.source or ""


def json_number(value: float) -> float | str:
    """A float that strict JSON can say: `NaN`, `Infinity` and `-Infinity` become strings."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _heal(descriptor: int, path: Path) -> int:
    """Ends or removes a last line without its newline; the offset where the next line goes."""
    size = os.fstat(descriptor).st_size
    start, tail = size, b""
    while start > 0 and b"\n" not in tail:
        step = min(start, 65536)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    tail = tail.rpartition(b"\n")[2]
    if not tail:
        return size
    if _parse(tail) is not None:
        _write(descriptor, b"\n", size)
        return size + 1
    log.warning("%s: removing a last line that is not complete", path)
    os.ftruncate(descriptor, size - len(tail))
    return size - len(tail)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
