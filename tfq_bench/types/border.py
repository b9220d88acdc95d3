"""The values that cross borders between host, plugins, store and report.

All are frozen, slotted and keyword-only. None needs torch to be imported; tensors appear in
annotations only. Symbols: `s` scale, `z` zero point, `b` bits, `t` timestep, `T` number of sampler
steps, `N` images, `M` calibration samples.

What is stored (`Record` and all in it) is written, checked and described in the JSON schema as its
annotations and `Args:` say: a new field is a line of its class, and `python -m tfq_bench.schemas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tfq_bench.providers import Direction, Execution, OptionValue

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FULL_PRECISION",
    "SANITY",
    "Block",
    "CalibrationData",
    "CalibrationNeeds",
    "Cell",
    "Component",
    "Guidance",
    "Interval",
    "Layer",
    "LayerKind",
    "MeasuredBy",
    "MetricDefinition",
    "MetricValue",
    "Record",
    "Role",
    "Scheme",
    "Status",
    "Topology",
]

FULL_PRECISION = 32
"""Bit width that stands for "not quantized"."""

SANITY = "sanity"
"""The metric that every run has: it fails where a cell's images show nothing."""

Key = Annotated[str, "key"]
"""Text that may be a part of a path."""
Count = Annotated[int, "count"]
"""A whole number from 0 on."""

Status = Literal["ok", "failed", "skipped"]
LayerKind = Literal["conv2d", "linear"]
Role = Literal[
    "input",
    "output",
    "time-mlp",
    "time-projection",
    "condition",
    "conv",
    "shortcut",
    "resample",
    "attention",
    "feed-forward",
    "other",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How many bits a cell asks for, and under which layer policy.

    Args:
        wbits, abits: bits of weights and activations, `FULL_PRECISION` for float.
        policy: name of the layer policy (`uniform` or one of the quantizer's own).
    """

    wbits: int = FULL_PRECISION
    abits: int = FULL_PRECISION
    policy: str = "uniform"

    @property
    def label(self) -> str:
        """`"FP"` or, for instance, `"W4A8"`."""
        if self.wbits == self.abits == FULL_PRECISION:
            return "FP"
        return f"W{self.wbits}A{self.abits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A provider's name together with every option's value, sorted by name.

    Args:
        label: of a metric that stands in a suite beside another of its provider, else empty.
    """

    name: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        """What it is called among the components of a suite: `kernel-distance:test`."""
        return self.titled(self.name)

    def titled(self, name: str) -> str:
        """`name` with the label behind it, for names that would stand twice without."""
        return f"{name}:{self.label}" if self.label else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid: what is quantized, how, and what executes it.

    Args:
        key: content key; equal keys mean equal results.
        seed: of everything random in the cell: calibration draw, rounding, sampling noise is
            *not* among them (noise depends on the suite's sampling seed, so that cells pair).
        variant: what tells it from cells of the same names: options and their values as text.
    """

    key: str
    model: Component
    quantizer: Component
    scheme: Scheme
    backend: Component
    seed: int
    variant: str = ""

    @property
    def label(self) -> str:
        """A short name, unique in a plan: `cifar10 / rtn W4A8 [split=True] / cpu`."""
        seed = f" / seed {self.seed}" if self.seed else ""
        policy = "" if self.scheme.policy == "uniform" else f" ({self.scheme.policy})"
        variant = f" [{self.variant}]" if self.variant else ""
        return (
            f"{self.model.name} / {self.quantizer.name} {self.scheme.label}{policy}{variant} / "
            f"{self.backend.name}{seed}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One quantizable layer of a network, in execution order.

    Args:
        name: its name in `network.named_modules()`.
        role: what it is for; policies go by role, never by index or substring.
        block: name of the block that holds it.
        weight_shape: `(C_out, C_in/groups, kh, kw)` or `(C_out, C_in)`.
        macs: multiply-accumulates of one call for one image.
        split: input channels of the first half when its input is a concatenation, else None.
    """

    name: str
    kind: LayerKind
    role: Role
    block: str
    weight_shape: tuple[int, ...]
    macs: int
    split: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One reconstruction unit: a residual, attention or transformer block, or a lone layer."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What quantizers and backends may know of a network, everything in execution order.

    Args:
        blocks: reconstruction units; every layer belongs to exactly one.
        time_mlp: layers of `h(t)`; empty when the network has no temporal module. Several chains
            when blocks have embedders of their own (DiT).
        time_projections: the layers `Linear_i` of `g_i`, one per block that takes the time. What
            they give may depend on the condition as well (SDXL, DiT).
        time_features: the layers whose output depends on the timestep alone and is read by
            something that does not: what can be tabulated. The time projections, or, where a
            condition is added before them, the last layers of the time MLP.
        attention: modules whose inner products can be quantized, see
            `tfq_bench.quant.lower.attention.is_attention`.
    """

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    time_mlp: tuple[str, ...] = ()
    time_projections: tuple[str, ...] = ()
    time_features: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()

    def layer(self, name: str) -> Layer:
        """The layer called `name`; KeyError when there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationNeeds:
    """Which states of the full-precision sampler a quantizer wants to see.

    Args:
        samples: pairs (step index in execution order, image index), without duplicates. Empty
            when the method needs no data.
    """

    samples: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """Classifier-free guidance (arXiv:2207.12598): `u + scale * (c - u)` of two predictions.

    Args:
        scale: 1 is the conditional prediction alone; then there is no guidance to speak of.
        condition: what the network is told when it is to know no condition, by argument name:
            tensors `[1, ...]`, or `[B, ...]` where it differs between images.
    """

    scale: float
    condition: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationData:
    """States captured in one pass of the full-precision sampler, ordered by (step, image).

    Under guidance each (step, image) has two rows, the unconditional one first: the network sees
    both, and every row is a network call of its own.

    Args:
        x: float32 `[M, C, H, W]`, the network's inputs x_t.
        timestep: `[M]`, the value passed to the network (float32 when fractional, else int64).
        step: int64 `[M]`, index of the sampler step in execution order.
        image: int64 `[M]`, index of the image.
        condition: tensors `[M, ...]` by argument name, empty for an unconditional model.
    """

    x: Tensor
    timestep: Tensor
    step: Tensor
    image: Tensor
    condition: Mapping[str, Tensor] = field(default_factory=dict)


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
