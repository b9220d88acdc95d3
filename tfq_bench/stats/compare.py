"""The difference of two numbers and how sure it is.

Two cells whose images pair share most of their sampling noise. Their bootstrap replicates resample
the same images, so the spread of the replicates' differences leaves the shared noise out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from tfq_bench.errors import NotComparable
from tfq_bench.keys import definition_id
from tfq_bench.stats.intervals import LEVEL
from tfq_bench.stats.results import CellResults, Measured, by_identity, flaw
from tfq_bench.types import Interval, MeasuredBy, MetricDefinition, MetricValue

__all__ = [
    "Comparison",
    "Delta",
    "Mark",
    "compare_runs",
    "compare_with_cell",
    "compare_with_reference",
    "delta",
]

Mark = Literal[
    "better",
    "worse",
    "differs",
    "no difference shown",
    "equal",
    "not comparable",
    "only in A",
    "only in B",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A difference `a - b` in the metric's unit.

    Args:
        interval: at level 0.95; None when neither value has a sampling error.
        paired: True when the interval comes from differences of paired replicates.
    """

    value: float
    interval: Interval | None
    paired: bool

    @property
    def known(self) -> bool:
        """False when the value or its interval is not finite: nobody knows how far they differ."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))

    @property
    def low(self) -> float:
        """Lower end of the interval, the value itself when it has none."""
        return self.value if self.interval is None else self.interval.low

    @property
    def high(self) -> float:
        """Upper end of the interval, the value itself when it has none."""
        return self.value if self.interval is None else self.interval.high

    @property
    def error(self) -> float:
        """Its standard error, in the metric's unit; 0 when neither value has a sampling error."""
        if self.interval is None:
            return 0.0
        return (self.interval.high - self.interval.low) / 2 / _z(self.interval.level)


def delta(a: MetricValue, b: MetricValue) -> Delta:
    """`a - b` with a normal interval.

    Paired, when `pairing` and the number of replicates are equal: `± z · std(a_i - b_i)`.
    Unpaired otherwise: `± z · sqrt(σ_a² + σ_b²)` with σ from the replicates, or from the interval
    where there are none. An error that cannot be computed counts as infinite.

    Raises:
        NotComparable: the definitions differ; names both ids and what differs.
    """
    _check(a.definition, b.definition)
    value = a.value - b.value
    paired = (
        a.pairing is not None
        and a.pairing == b.pairing
        and len(a.replicates) == len(b.replicates) >= 2
        and bool(np.isfinite(a.replicates).all() and np.isfinite(b.replicates).all())
    )
    if paired:
        error = _spread([x - y for x, y in zip(a.replicates, b.replicates, strict=True)])
    elif _has_error(a) or _has_error(b):
        error = math.hypot(_standard_error(a), _standard_error(b))
    else:
        return Delta(value=value, interval=None, paired=False)
    half = _z(LEVEL) * error
    method = "paired-bootstrap-se" if paired else "unpaired-se"
    interval = Interval(low=value - half, high=value + half, level=LEVEL, method=method)
    return Delta(value=value, interval=interval, paired=paired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of one cell, in A and in B.

    Args:
        a, b: the values, None where there is none.
        delta: `b - a`, None when there is none.
        mark: how B stands to A; `no difference shown` when the interval holds zero.
        reason: why they do not compare, or why one is missing.
        volatile: True for a number that may differ between two runs of one cell.
    """

    label: str
    metric: str
    unit: str
    a: float | None
    b: float | None
    delta: Delta | None
    mark: Mark
    reason: str | None = None
    volatile: bool = False


def compare_runs(a: Sequence[CellResults], b: Sequence[CellResults]) -> tuple[Comparison, ...]:
    """Every metric of every cell of two runs; cells match by axes, in A's order, then B's."""
    others, mine = by_identity(b), by_identity(a)
    rows: list[Comparison] = []
    for cell in a:
        rows += _compare_cells(cell.label, cell, others.get(cell.identity))
    for cell in b:
        if cell.identity not in mine:
            rows += _compare_cells(cell.label, None, cell)
    return tuple(rows)


def compare_with_reference(cells: Sequence[CellResults]) -> tuple[Comparison, ...]:
    """Every cell (B) of one run against its full-precision cell (A), where both have the metric."""
    by_key = {cell.key: cell for cell in cells}
    rows: list[Comparison] = []
    for cell in cells:
        reference = by_key.get(cell.reference) if cell.reference is not None else None
        if reference is not None:
            rows += _common(reference, cell)
    return tuple(rows)


def compare_with_cell(cells: Sequence[CellResults], one: CellResults) -> tuple[Comparison, ...]:
    """Every other cell (B) of the same model against `one` (A), where both have the metric."""
    rows: list[Comparison] = []
    for cell in cells:
        if cell is not one and _model(cell) == _model(one):
            rows += _common(one, cell)
    return tuple(rows)


def _model(cell: CellResults) -> tuple[str | None, ...]:
    return tuple(cell.axes.get(name) for name in ("model", "model_options"))


def _common(a: CellResults, b: CellResults) -> Iterator[Comparison]:
    for name in a.values:
        if name in b.values:
            yield _compare(b.label, name, a.values[name], b.values[name])


def _compare_cells(
    label: str, a: CellResults | None, b: CellResults | None
) -> Iterator[Comparison]:
    first, second = (cell.values if cell is not None else {} for cell in (a, b))
    for name in dict.fromkeys((*first, *second)):
        if name in first and name in second:
            yield _compare(label, name, first[name], second[name])
            continue
        missing = b if name in first else a
        known = (first if name in first else second)[name].metric
        yield Comparison(
            label=label,
            metric=name,
            unit=known.definition.unit,
            a=known.value if name in first else None,
            b=known.value if name in second else None,
            delta=None,
            mark="only in A" if name in first else "only in B",
            reason=None if missing is None else missing.reason,
        )


def _compare(label: str, name: str, a: Measured, b: Measured) -> Comparison:
    mark: Mark
    difference, reason = None, None
    try:
        difference = delta(b.metric, a.metric)
        if b.metric.definition.volatile and (a.hardware is None or a.hardware != b.hardware):
            raise NotComparable("measured on different or unknown hardware.")
        mark = _mark(difference, b.metric.definition)
        if mark == "not comparable":
            found = (flaw(value.metric) for value in (a, b))
            reason = (
                f"{name}: expected finite numbers whose error can be computed, found "
                f"{next(filter(None, found), 'a difference that is not finite')}."
            )
    except NotComparable as error:
        difference, mark, reason = None, "not comparable", str(error)
    return Comparison(
        label=label,
        metric=name,
        unit=b.metric.definition.unit,
        a=a.metric.value,
        b=b.metric.value,
        delta=difference,
        mark=mark,
        reason=reason,
        volatile=b.metric.definition.volatile,
    )


def _mark(difference: Delta, definition: MetricDefinition) -> Mark:
    if not difference.known:
        return "not comparable"
    if difference.low == difference.high == 0:
        return "equal"
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    if definition.direction == "none" or (definition.volatile and difference.interval is None):
        return "differs"  # one time or size that varies from run to run proves nothing
    lower = definition.direction == "lower"
    return "better" if (difference.value < 0) == lower else "worse"


def _check(a: MetricDefinition, b: MetricDefinition) -> None:
    first, second = definition_id(a), definition_id(b)
    if first != second:
        differing = "; ".join(_differences(a, b))
        raise NotComparable(
            f"numbers of different definitions do not compare: {first} and {second} differ in "
            f"{differing}."
        )


def _differences(a: MetricDefinition, b: MetricDefinition) -> Iterator[str]:
    for name in ("name", "unit", "direction"):
        if getattr(a, name) != getattr(b, name):
            yield f"{name} ({getattr(a, name)!r} and {getattr(b, name)!r})"
    yield from _parameter_differences(a.parameters, b.parameters, "")
    yield from _measured_differently(a.measured_by, b.measured_by)


def _measured_differently(a: MeasuredBy | None, b: MeasuredBy | None) -> Iterator[str]:
    if a is None or b is None:
        if a is not b:
            yield (
                "the metric and its options (only one of them says which; results of earlier "
                "versions do not)"
            )
        return
    if a.metric != b.metric:
        yield f"the metric that measured them ('{a.metric}' and '{b.metric}')"
    for name in sorted({*a.options, *b.options}):
        first, second = (
            repr(by.options[name]) if name in by.options else "its default" for by in (a, b)
        )
        if first != second:
            yield f"option {name} ({first} and {second})"


def _parameter_differences(
    a: Mapping[str, Any], b: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    for name in sorted({*a, *b}):
        path = f"{prefix}{name}"
        if name not in a or name not in b:
            yield f"{path} (only one of them has it)"
        elif isinstance(a[name], Mapping) and isinstance(b[name], Mapping):
            yield from _parameter_differences(a[name], b[name], f"{path}.")
        elif a[name] != b[name]:
            yield f"{path} ({a[name]!r} and {b[name]!r})"


def _has_error(value: MetricValue) -> bool:
    return value.interval is not None or len(value.replicates) >= 2


def _standard_error(value: MetricValue) -> float:
    if len(value.replicates) >= 2 and np.isfinite(value.replicates).all():
        return _spread(value.replicates)
    if value.interval is None:
        return math.inf if value.replicates else 0.0
    interval = value.interval
    error = (interval.high - interval.low) / 2 / _z(interval.level)
    return error if math.isfinite(error) else math.inf


def _spread(values: Sequence[float] | np.ndarray) -> float:
    """The standard deviation; infinite or NaN where a float cannot hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.std(values, ddof=1))


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)
