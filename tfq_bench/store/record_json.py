"""Records and metric values as JSON data, and what of it is believed when it is read.

Floats that JSON cannot say stand as the strings `NaN`, `Infinity` and `-Infinity`. A new field of a
record is a line in `_RECORD`, one in `record_to_json` and one in `schemas/record.schema.json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfq_bench.border import Interval, MeasuredBy, MetricDefinition, MetricValue, Record
from tfq_bench.errors import StoreError
from tfq_bench.foreign import printable
from tfq_bench.store.plan_file import AXES, EXECUTION
from tfq_bench.store.shapes import (
    AMOUNT,
    COUNT,
    FLAG,
    KEY,
    LEVEL,
    NUMBER,
    NUMBERS,
    TEXT,
    Misfit,
    anything,
    fields,
    many,
    mapping,
    one_of,
    optional,
)

__all__ = [
    "DEFINITION",
    "INTERVAL",
    "LATER",
    "SCHEMA",
    "definition_from_json",
    "json_number",
    "metric_from_json",
    "metric_to_json",
    "record_from_json",
    "record_to_json",
]

SCHEMA = 2

INTERVAL = optional(fields({"low": NUMBER, "high": NUMBER, "level": LEVEL, "method": TEXT}))

DEFINITION = {
    "name": TEXT,
    "unit": TEXT,
    "direction": one_of("lower", "higher", "none"),
    "summary": TEXT,
    "parameters": mapping(anything),
    "volatile": FLAG,
}
"""What a metric's definition is stored as; a baseline has it once for all its numbers."""

LATER = {
    "margin": optional(AMOUNT),
    "measured_by": optional(fields({"metric": TEXT, "options": mapping(anything)})),
}
"""Beside a definition; files of versions before them have none."""

_METRIC = fields(
    {
        **DEFINITION,
        "value": NUMBER,
        "n": COUNT,
        "interval": INTERVAL,
        "replicates": NUMBERS,
        "pairing": optional(TEXT),
        "reference": optional(TEXT),
        "series": mapping(NUMBERS),
    },
    LATER,
)

_FIELDS = {
    "schema": COUNT,
    "run": TEXT,
    "cell": KEY,
    "label": TEXT,
    "axes": AXES,
    "status": one_of("ok", "failed", "skipped"),
    "execution": EXECUTION,
    "environment": TEXT,
    "plugins": many(TEXT),
    "metric": optional(_METRIC),
    "definition": optional(TEXT),
    "stage": optional(TEXT),
    "reason": optional(TEXT),
    "reproduce": optional(TEXT),
    "log": optional(TEXT),
    "source": optional(KEY),
    "source_values": COUNT,
    "failed_metric": optional(TEXT),
}
_RECORD = fields(_FIELDS)
_PLAIN = tuple(name for name in _FIELDS if name not in ("schema", "axes", "plugins", "metric"))


def metric_to_json(metric: MetricValue) -> dict[str, Any]:
    """A metric's value and definition as strict JSON data."""
    definition, interval = metric.definition, metric.interval
    by = definition.measured_by
    return {
        "name": definition.name,
        "unit": definition.unit,
        "direction": definition.direction,
        "summary": definition.summary,
        "parameters": dict(definition.parameters),
        "volatile": definition.volatile,
        "margin": definition.margin,
        "measured_by": None
        if by is None
        else {"metric": by.metric, "options": dict(sorted(by.options.items()))},
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
    """The inverse of `metric_to_json`.

    Raises:
        StoreError: a field is missing or not what it should be.
    """
    try:
        _METRIC(data, "")
    except Misfit as error:
        raise StoreError(f"this is no metric's value: {error}.") from None
    return _metric(data)


def _metric(data: Mapping[str, Any]) -> MetricValue:
    interval = data["interval"]
    return MetricValue(
        definition=definition_from_json(data),
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


def definition_from_json(data: Mapping[str, Any]) -> MetricDefinition:
    """The definition among fields that fit `DEFINITION` and `LATER`."""
    by = data.get("measured_by")
    return MetricDefinition(
        **{name: data[name] for name in DEFINITION},
        margin=data.get("margin"),
        measured_by=None if by is None else MeasuredBy(metric=by["metric"], options=by["options"]),
    )


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as strict JSON data, see `schemas/record.schema.json`."""
    return {
        "schema": SCHEMA,
        **{name: getattr(record, name) for name in _PLAIN},
        "axes": dict(record.axes),
        "plugins": list(record.plugins),
        "metric": None if record.metric is None else metric_to_json(record.metric),
    }


def record_from_json(data: Mapping[str, Any]) -> Record:
    """The inverse of `record_to_json`.

    Raises:
        StoreError: another schema number, or a field that is missing or not what it should be.
    """
    schema = data.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        found = printable(repr(schema), 80)
        raise StoreError(f"expected a record of schema {SCHEMA}, found {found}")
    try:
        _RECORD(data, "")
        _check_kind(data)
    except Misfit as error:
        raise StoreError(str(error)) from None
    metric = data["metric"]
    return Record(
        **{name: data[name] for name in _PLAIN},
        axes=data["axes"],
        plugins=tuple(data["plugins"]),
        metric=None if metric is None else _metric(metric),
    )


def _check_kind(data: Mapping[str, Any]) -> None:
    """A record is of a number, of a metric without one, of a failed metric, or of a cell."""
    of_metric = data["failed_metric"] is not None
    if (data["status"] == "ok" or of_metric) != (data["source"] is not None):
        raise Misfit("expected a source exactly where a metric gave numbers or failed")
    if data["status"] != "ok" and data["metric"] is not None:
        raise Misfit(f"expected no number with the status '{data['status']}', found one")
    if of_metric and data["status"] != "failed":
        raise Misfit(f"expected the status 'failed' of a failed metric, found '{data['status']}'")
    if (data["metric"] is None) != (data["definition"] is None):
        raise Misfit("expected a definition exactly where there is a number")


def json_number(value: float) -> float | str:
    """A float that strict JSON can say: `NaN`, `Infinity` and `-Infinity` become strings."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
