"""What a method took before its network could be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["Cost"]

_STAGES = ("calibrate", "quantize")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quantity:
    name: str
    unit: str
    fact: str
    summary: str


_QUANTITIES = (
    _Quantity(
        name="calibration-seconds",
        unit="s",
        fact="seconds",
        summary="Time to capture the method's calibration data and to quantize, model loading "
        "aside. Cells that share their data each count its capture.",
    ),
    _Quantity(
        name="calibration-peak-bytes",
        unit="bytes",
        fact="peak_memory_bytes",
        summary="Most memory that capturing or quantizing needed on top of the loaded network.",
    ),
    _Quantity(
        name="calibration-network-calls",
        unit="",
        fact="network_calls",
        summary="Forward passes of the whole network, of whatever batch, while capturing and "
        "quantizing; steps that train single blocks are not among them.",
    ),
)
_MEMORY = {"cpu": "resident memory of the process, sampled", "cuda": "allocated by torch"}


class Cost:
    """Seconds and calls add up over capture and quantization; memory is the larger of both.

    All are volatile: machines differ, and a method that was stopped counts what it did twice.
    Full precision has none of them.
    """

    names = tuple(quantity.name for quantity in _QUANTITIES)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """What the stages noted; nothing is measured here. Fewer where a stage did not note one."""
        if inputs.reference_cell is None:
            return ()
        stages = [facts for stage in _STAGES if (facts := inputs.facts(stage))]
        values = []
        for quantity in _QUANTITIES:
            if not stages or any(quantity.fact not in facts for facts in stages):
                continue
            numbers = [float(facts[quantity.fact]) for facts in stages]
            value = max(numbers) if quantity.unit == "bytes" else sum(numbers)
            definition = _definition(quantity, inputs.loaded.device)
            values.append(MetricValue(definition=definition, value=value, n=1))
        return tuple(values)


def _definition(quantity: _Quantity, device: str) -> MetricDefinition:
    parameters: dict[str, object] = {"formula": 1, "device": device}
    if quantity.unit == "bytes":
        parameters["memory"] = _MEMORY.get(device.partition(":")[0], device)
    return MetricDefinition(
        name=quantity.name,
        unit=quantity.unit,
        direction="lower",
        summary=quantity.summary,
        parameters=parameters,
        volatile=True,
    )
