"""What is stored: numbers with their definitions, as records.

A record is written, checked and described in the JSON schema as annotations and `Args:` here say: a
new field is a line of its class, and `python -m tfq_bench.schemas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tfq_bench.types.cells import Execution
from tfq_bench.types.options import OptionValue

__all__ = [
    "SANITY",
    "Count",
    "Direction",
    "Interval",
    "Key",
    "MeasuredBy",
    "MetricDefinition",
    "MetricValue",
    "Record",
    "Status",
]

SANITY = "sanity"
"""The metric that every run has: it fails where a cell's images show nothing."""

Direction = Literal["lower", "higher", "none"]

Key = Annotated[str, "key"]
"""Text that may be a part of a path."""

Count = Annotated[int, "count"]
"""A whole number from 0 on."""

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval around a value, in the value's unit."""

    low: float
    high: float
    level: Annotated[float, "level"]
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBy:
    """Which metric gave a number, and how it was set: the host's part of what the number means.

    Args:
        metric: `distribution:name`. Its version is no part: a gate judges what a new one does.
        options: those that differ from their default and of which the definition's parameters say
            nothing (`Option.in_definition`); files by their content.
    """

    metric: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDefinition:
    """What a number means; numbers of different definitions are never compared.

    Args:
        name: column name, for instance `fd-efficientnet-lite0`.
        unit: `""` for a pure number, else `dB`, `ms`, `bytes`, ...
        direction: which way is better.
        parameters: everything the value depends on besides the cell: extractor digest, resize,
            reference digest, number of images, sampler and steps, version of the formula.
        volatile: True when two runs of one cell may differ (times, memory).
        margin: how much worse, in `unit`, a gate without rules lets the number get; None for 2 % of
            the baseline. Decibels and bounded numbers have one: 2 % of an SSIM of 0.999 is twenty
            times the loss that it measures. It is no part of what the number means.
        measured_by: filled in by the host in records and baselines; None before that, and in files
            of versions that did not know it.
    """

    name: str
    unit: str
    direction: Direction
    summary: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    volatile: bool = False
    margin: Annotated[Annotated[float, "amount"] | None, "later"] = None
    measured_by: Annotated[MeasuredBy | None, "later"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """One number with what is needed to compare it.

    Args:
        value: finite. What cannot be computed is no value: the metric raises `MetricError`.
        n: how many images (or timed rounds) it rests on.
        interval: None when the value has no sampling error.
        replicates: bootstrap replicates; replicate `b` of two cells with equal `pairing` used the
            same images, so their differences have a paired interval. Empty when not resampled.
        pairing: id of the images and resampling plan, None when nothing may be paired.
        reference: key of the cell it is measured against, for paired metrics.
        series: named curves for the report, e.g. error per timestep; finite.
    """

    definition: Annotated[MetricDefinition, "inline"]
    value: float
    n: Count
    interval: Interval | None = None
    replicates: tuple[float, ...] = ()
    pairing: str | None = None
    reference: str | None = None
    series: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of `records.jsonl`: a metric of a cell, or what became of a cell without one.

    A finished cell has one record per number, and one without (`ok`, `metric` None) for each of its
    metrics that gave none. A failed or skipped cell has one record with `metric` None. A metric
    that failed has one of its own (`failed`, `failed_metric`), and the cell keeps its other
    numbers. Later records of the same (cell, metric name) replace earlier ones.

    Args:
        run: plan id.
        cell: content key of the cell.
        label: the cell's label.
        environment: id of `env-<id>.json`.
        execution: how the network was executed.
        definition: id of the metric's definition (`name@digest`); numbers of different ids do not
            compare.
        stage: where it failed, for a failed cell.
        reason: why it failed or was skipped.
        reproduce: command that repeats it.
        log: path of the cell's log, relative to the run folder.
        source: key of the evaluation that gave the number, or failed; None for a whole cell. A
            record whose source is not in the plan is no longer current.
        source_values: how many numbers that evaluation gave, so that a lost one is missed.
        failed_metric: name of the metric in the suite, for a record of its failure.
        axes: `model`, `quantizer`, `scheme`, `wbits`, `abits`, `policy`, `backend`, `seed`,
            `quantizer_options`, all as text.
        plugins: `distribution==version` of everything the cell used, sorted.
    """

    run: str
    cell: Key
    label: str
    status: Status
    execution: Execution
    environment: str
    definition: str | None = None
    stage: str | None = None
    reason: str | None = None
    reproduce: str | None = None
    log: str | None = None
    source: Key | None = None
    source_values: Count = 0
    failed_metric: str | None = None
    axes: Annotated[Mapping[str, str], "axes"]
    plugins: tuple[str, ...] = ()
    metric: MetricValue | None = None

    @property
    def broken_images(self) -> bool:
        """True for the record of a cell whose images, or whose reference's, show nothing."""
        return self.failed_metric is not None and (
            self.failed_metric.partition(":")[0] == SANITY
            or self.failed_metric.endswith(f":{SANITY}")
        )
