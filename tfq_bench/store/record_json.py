"""Records and metric values as JSON data, and what of it is believed when it is read.

Their fields are declared in `types.records`: a new one is a line in its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import printable
from tfq_bench.store.codec import Struct, json_number
from tfq_bench.store.shapes import CHECKSUM, Misfit, constant, fields
from tfq_bench.types import MetricDefinition, MetricValue, Record

__all__ = [
    "DEFINITION",
    "METRIC",
    "SCHEMA",
    "json_number",
    "json_schema",
    "metric_from_json",
    "metric_to_json",
    "record_from_json",
    "record_to_json",
]

SCHEMA = 2

DEFINITION = Struct(MetricDefinition)
METRIC = Struct(MetricValue)
_RECORD = Struct(Record)
_LINE = fields({"schema": constant(SCHEMA), **_RECORD.required}, _RECORD.later)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a line; `schemas/record.schema.json` is its copy."""
    check = CHECKSUM.described(
        "Last in the line: head of the SHA-256 of the check of the line before (nothing for the "
        "first), a newline, and the line's bytes up to the comma before this field."
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "TFQ-Bench record: one line of records.jsonl",
        "description": "A metric of a cell, or what became of a cell or a metric without one. The "
        "latest line per (cell, metric name) counts.",
        **_LINE.schema,
        "required": [*_LINE.schema["required"], "check"],
        "properties": {**_LINE.schema["properties"], "check": check.schema},
    }


def metric_to_json(metric: MetricValue) -> dict[str, Any]:
    """A metric's value and definition as strict JSON data."""
    return METRIC.to_json(metric)


def metric_from_json(data: Mapping[str, Any]) -> MetricValue:
    """The inverse of `metric_to_json`.

    Raises:
        StoreError: a field is missing or not what it should be.
    """
    try:
        METRIC.shape(data, "")
    except Misfit as error:
        raise StoreError(f"this is no metric's value: {error}.") from None
    return METRIC.from_json(data)


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as strict JSON data, see `schemas/record.schema.json`."""
    return {"schema": SCHEMA, **_RECORD.to_json(record)}


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
        _LINE(data, "")
        _check_kind(data)
    except Misfit as error:
        raise StoreError(str(error)) from None
    return _RECORD.from_json(data)


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
