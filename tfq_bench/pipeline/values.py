"""What a metric returns, checked before it is stored: a plugin is not believed.

A number that gets past this is finite, has a name of its own, and reads back from the disk as what
it was. Everything else fails the metric, in words that say which value and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from numbers import Integral
from typing import Any, get_args

from tfq_bench.errors import MetricError
from tfq_bench.foreign.text import printable
from tfq_bench.pipeline.plain import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_NAME,
    plain_json,
    plain_number,
    plain_numbers,
    plain_text,
    shown,
)
from tfq_bench.types import Direction, Interval, MetricDefinition, MetricValue

__all__ = ["checked_values"]

MAX_PARAMETERS = 1 << 20
"""Bytes of a definition's parameters as JSON; every record carries them."""
MAX_VALUES = 1000
LEAST_LEVEL = 0.5
"""Of an interval; the median of two rounds has this one."""
MAX_TEXT = 1000
DIRECTIONS = get_args(Direction)


def checked_values(values: object, *, reference: str | None) -> tuple[MetricValue, ...]:
    """The values that `evaluate` returned, in plain Python types, once all is as it should be.

    Args:
        values: what `evaluate` returned.
        reference: key of the cell that a value may be measured against, None when there is none.

    Raises:
        MetricError: something in them cannot stand in a record.
    """
    found = tuple(_value(value, reference) for value in _items(values))
    names = [value.definition.name for value in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MetricError(f"two of its values are called '{twice}'; every name stands once.")
    return found


def _items(given: object) -> list[MetricValue]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise MetricError(f"'evaluate' must return a tuple of MetricValue, found {shown(given)}.")
    items = list(islice(given, MAX_VALUES + 1))
    if len(items) > MAX_VALUES:
        raise MetricError(f"'evaluate' returned more than {MAX_VALUES} values.")
    for item in items:
        if not isinstance(item, MetricValue):
            raise MetricError(
                f"'evaluate' must return a tuple of MetricValue, found {shown(item)} in it."
            )
    return items


def _definition(given: MetricDefinition) -> MetricDefinition:
    name = plain_text(given.name, "a value's name", MAX_NAME)
    if not name:
        raise MetricError("a value's name must not be empty.")
    where = f"'{name}'"
    if not isinstance(given.direction, str) or given.direction not in DIRECTIONS:
        raise MetricError(
            f"{where}: direction must be one of {', '.join(DIRECTIONS)}, found "
            f"{shown(given.direction)}."
        )
    if not isinstance(given.volatile, bool):
        raise MetricError(
            f"{where}: volatile must be true or false, found {shown(given.volatile)}."
        )
    if not isinstance(given.summary, str):
        raise MetricError(f"{where}: summary must be text, found {shown(given.summary)}.")
    margin = None if given.margin is None else plain_number(given.margin, f"{where}: margin")
    if margin is not None and margin < 0:
        raise MetricError(f"{where}: margin must be at least 0, found {margin}.")
    return replace(
        given,
        margin=margin,
        measured_by=None,  # the host's to say
        name=name,
        unit=plain_text(given.unit, f"{where}: unit", MAX_NAME),
        summary=printable(given.summary, MAX_TEXT),
        parameters=_parameters(given.parameters, where),
    )


def _value(given: MetricValue, reference: str | None) -> MetricValue:
    definition = _defined(given)
    where = f"'{definition.name}'"
    value = plain_number(given.value, where)
    n = given.n
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n < MAX_INTEGER:
        raise MetricError(f"{where}: n must be a whole number of at least 1, found {shown(n)}.")
    replicates = plain_numbers(given.replicates, f"{where}: replicates")
    pairing = (
        None if given.pairing is None else plain_text(given.pairing, f"{where}: pairing", MAX_TEXT)
    )
    if replicates and not pairing:
        raise MetricError(f"{where}: replicates need a pairing, the id of what was resampled.")
    if given.reference is not None and not (
        isinstance(given.reference, str) and given.reference == reference
    ):
        raise MetricError(
            f"{where}: reference must be the cell's 'reference_cell' ({reference}) or None, found "
            f"{shown(given.reference)}."
        )
    return MetricValue(
        definition=definition,
        value=value,
        n=int(n),
        interval=None if given.interval is None else _interval(given.interval, where),
        replicates=replicates,
        pairing=pairing,
        reference=None if given.reference is None else reference,
        series=_series(given.series, where),
    )


def _defined(given: MetricValue) -> MetricDefinition:
    if not isinstance(given.definition, MetricDefinition):
        raise MetricError(
            f"a value's definition must be a MetricDefinition, found {shown(given.definition)}."
        )
    return _definition(given.definition)


def _interval(given: object, where: str) -> Interval:
    if not isinstance(given, Interval):
        raise MetricError(f"{where}: interval must be an Interval or None, found {shown(given)}.")
    low = plain_number(given.low, f"{where}: the interval's low end")
    high = plain_number(given.high, f"{where}: the interval's high end")
    level = plain_number(given.level, f"{where}: the interval's level")
    # Whether the value lies inside is not asked: percentile intervals of biased estimators do not
    # always hold it, and say so rightly.
    if low > high:
        raise MetricError(f"{where}: the interval's low end {low} is above its high end {high}.")
    # Less is, most likely, the chance of a miss (0.05): the error would be read 16 times too large,
    # and a gate would find nothing but noise.
    if not LEAST_LEVEL <= level < 1:
        raise MetricError(
            f"{where}: the interval's level, its chance to hold the true value, must lie between "
            f"{LEAST_LEVEL} and 1, found {level}."
        )
    method = plain_text(given.method, f"{where}: the interval's method", MAX_NAME)
    return Interval(low=low, high=high, level=level, method=method)


def _series(given: object, where: str) -> dict[str, tuple[float, ...]]:
    if not isinstance(given, Mapping):
        raise MetricError(f"{where}: series must be a mapping of curves, found {shown(given)}.")
    return {
        plain_text(name, f"{where}: a curve's name", MAX_TEXT): plain_numbers(
            curve, f"{where}: curve {printable(name, MAX_NAME)!r}"
        )
        for name, curve in given.items()
    }


def _parameters(given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise MetricError(f"{where}: parameters must be a mapping, found {shown(given)}.")
    plain: dict[str, Any] = plain_json(given, f"{where}: parameters", MAX_DEPTH)
    size = len(json.dumps(plain))
    if size > MAX_PARAMETERS:
        raise MetricError(
            f"{where}: parameters are {size:,} bytes of JSON, more than the {MAX_PARAMETERS:,} "
            "that a record may carry; put a digest of what is large there."
        )
    return plain
