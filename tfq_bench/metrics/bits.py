"""What a cell's weights take: bits, bytes, and what stayed float."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfq_bench.types import FULL_PRECISION, MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["Bits"]

_NAMES = {
    "mean-weight-bits": ("bits", "Mean bits per weight of all convolutions and linear layers."),
    "size-bytes": ("bytes", "The whole network: packed layers, and float32 for what is left."),
    "packed-bytes": ("bytes", "The quantized layers as stored: codes, scales, tables, biases."),
    "fp-weight-share": ("", "Share of the weights of these layers that stay float."),
}
_FILE_BYTES = MetricDefinition(
    name="file-bytes",
    unit="bytes",
    direction="lower",
    summary="The whole network, as the files that a tool of its own wrote.",
    parameters={"formula": 1},
)


class Bits:
    """Four exact numbers; `size-bytes` carries the bytes of every role as `bytes:<role>`.

    Of a contestant three: bits as it says that its layers have them, and `file-bytes`, which count
    otherwise than the bytes of a state and so have a name of their own.
    """

    names = (*_NAMES, _FILE_BYTES.name)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Counted from the state, not estimated from the asked bits.

        `packed-bytes` only where something is packed.
        """
        from tfq_bench.quant.bit_report import bit_report

        if inputs.facts("lower").get("execution") == "external":
            return _external(inputs)
        loaded, state = inputs.loaded, inputs.state
        report = bit_report(loaded.network, loaded.topology, state)
        quantized = {} if state is None else state.layers
        dropped = state.dropped(loaded.topology) if state is not None else frozenset()
        count = {
            layer.name: math.prod(layer.weight_shape)
            for layer in loaded.topology.layers
            if layer.name not in dropped
        }
        low = sum(count[name] for name in quantized)
        values = {
            "mean-weight-bits": report.mean_weight_bits,
            "size-bytes": float(report.total_bytes),
            "packed-bytes": float(report.packed_bytes),
            "fp-weight-share": 1 - low / sum(count.values()),
        }
        roles = {f"bytes:{role}": (float(size),) for role, size in report.bytes_by_role.items()}
        return tuple(
            MetricValue(
                definition=_definition(name),
                value=values[name],
                n=1,
                series=roles if name == "size-bytes" else {},
            )
            for name in _NAMES
            if not (state is None and name == "packed-bytes")
        )


def _external(inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
    bits = {use["layer"]: int(use["wbits"]) for use in inputs.facts("lower")["kernels"]}
    layers = inputs.loaded.topology.layers
    count = {layer.name: math.prod(layer.weight_shape) for layer in layers}
    weights = sum(count.values())
    mean = sum(count[name] * bits.get(name, FULL_PRECISION) for name in count) / weights
    return (
        MetricValue(definition=_definition("mean-weight-bits"), value=mean, n=1),
        MetricValue(definition=_FILE_BYTES, value=float(inputs.facts("quantize")["bytes"]), n=1),
        MetricValue(
            definition=_definition("fp-weight-share"),
            value=1 - sum(count[name] for name in bits) / weights,
            n=1,
        ),
    )


def _definition(name: str) -> MetricDefinition:
    unit, summary = _NAMES[name]
    return MetricDefinition(
        name=name,
        unit=unit,
        # A share that stays float is neither good nor bad: it is a choice to be seen.
        direction="none" if name == "fp-weight-share" else "lower",
        summary=summary,
        parameters={"formula": 1, "float_bytes": 4},
    )
