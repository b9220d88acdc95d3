"""What kernels and contestants really ran, and how far kernels are from their simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["KernelUsage"]

LOW_BIT = 8


class KernelUsage:
    """Three facts of the lower stage; none for full precision and for simulated cells.

    Of a contestant its layers are those that it says it quantized.
    """

    names = ("mac-share-low-bit", "fallback-layers", "parity-rms")

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Facts, without intervals; the kernels that ran are in the series `executed:<kernel>`.

        `parity-rms` only where parity was measured.
        """
        facts = inputs.facts("lower")
        if facts.get("execution") not in ("lowered", "external"):
            return ()
        uses = facts["kernels"]
        low = sum(
            use["macs"]
            for use in uses
            if use["fallback"] is None and max(use["wbits"], use["abits"]) <= LOW_BIT
        )
        topology, state = inputs.loaded.topology, inputs.state
        dropped = state.dropped(topology) if state is not None else frozenset()
        total = sum(layer.macs for layer in topology.layers if layer.name not in dropped)
        values = [
            MetricValue(
                definition=MetricDefinition(
                    name="mac-share-low-bit",
                    unit="",
                    direction="higher",
                    margin=0.0,
                    summary="Share of the network's multiply-accumulates done by kernels of at "
                    "most 8 bits.",
                    parameters={"formula": 1, "at_most_bits": LOW_BIT},
                ),
                value=low / total,
                n=1,
                series={
                    f"executed:{kernel}": (float(times),)
                    for kernel, times in facts["executed"].items()
                },
            ),
            MetricValue(
                definition=MetricDefinition(
                    name="fallback-layers",
                    unit="",
                    direction="lower",
                    summary="Quantized layers without a low-bit kernel.",
                    parameters={"formula": 1},
                ),
                value=float(sum(use["fallback"] is not None for use in uses)),
                n=1,
            ),
        ]
        if facts.get("parity") is not None:
            definition = MetricDefinition(
                name="parity-rms",
                unit="",
                direction="lower",
                summary="Root mean square difference of lowered and simulated predictions, "
                "over the root mean square of the simulated ones.",
                parameters={"formula": 1, "sampler": inputs.sampling["sampler"]},
            )
            parity = float(facts["parity"]["relative"])
            values.append(MetricValue(definition=definition, value=parity, n=1))
        return tuple(values)
