"""Time and memory of a network call. Simulated cells have none: nobody would run them for speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tfq_bench.stats.intervals import median_interval
from tfq_bench.types import Direction, MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["Timing"]


_TYPES = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
"""What a model's network computes in, as names of metrics say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number:
    """A metric and the values behind it, one per timed round."""

    name: str
    unit: str
    direction: Direction
    summary: str
    rounds: Sequence[float]


class Timing:
    """Medians over rounds with their intervals."""

    names = (
        "latency-ms",
        "throughput-images-per-s",
        "speedup-vs-fp32-eager",
        "speedup-vs-bf16-eager",
        "speedup-vs-fp16-eager",
        "peak-memory-bytes",
    )

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """The numbers of the measure stage, all volatile; nothing is timed here.

        The speed-up is over the model's own network, and its name says what that computes in.
        """
        return tuple(
            MetricValue(
                definition=_definition(number, inputs),
                value=median(number.rounds),
                n=len(number.rounds),
                interval=median_interval(number.rounds),
            )
            for number in _numbers(inputs)
        )


def _numbers(inputs: EvaluationInputs) -> list[_Number]:
    measured = inputs.facts("measure")
    if not measured or inputs.facts("lower").get("execution") == "simulated":
        return []
    return _call_numbers(measured, _type_name(str(inputs.loaded.model.dtype)))


def _type_name(dtype: str) -> str:
    return _TYPES.get(dtype, dtype.removeprefix("torch."))


def _call_numbers(measured: Mapping[str, Any], reference_type: str) -> list[_Number]:
    latency, reference = measured["latency_ms"], measured["reference_latency_ms"]
    batch = int(measured["batch"])
    numbers = [
        _Number(
            name="latency-ms",
            unit="ms",
            direction="lower",
            summary=f"One network call for a batch of {batch}, median of interleaved rounds.",
            rounds=latency,
        ),
        _Number(
            name="throughput-images-per-s",
            unit="images/s",
            direction="higher",
            summary="Images of one batch over the latency of one network call.",
            rounds=[1e3 * batch / ms for ms in latency],
        ),
        _Number(
            name=f"speedup-vs-{reference_type}-eager",
            unit="x",
            direction="higher",
            summary=f"{reference_type.upper()} eager latency over the cell's, within one round, "
            "median of the ratios.",
            rounds=[other / ms for ms, other in zip(latency, reference, strict=True)],
        ),
    ]
    if "peak_memory_bytes" in measured:
        numbers.append(
            _Number(
                name="peak-memory-bytes",
                unit="bytes",
                direction="lower",
                summary="Weights and buffers, and the most one call allocates on top of them.",
                rounds=[measured["peak_memory_bytes"]],
            )
        )
    return numbers


def _definition(number: _Number, inputs: EvaluationInputs) -> MetricDefinition:
    measured = inputs.facts("measure")
    parameters: dict[str, Any] = {
        "formula": 1,
        "device": inputs.loaded.device,
        "batch": measured["batch"],
        "threads": measured["threads"],
    }
    return MetricDefinition(
        name=number.name,
        unit=number.unit,
        direction=number.direction,
        summary=number.summary,
        parameters=parameters,
        volatile=True,
    )
