"""A full-precision model becomes a `QuantizedState`: data, no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfq_bench.border import CalibrationNeeds, Scheme
from tfq_bench.errors import QuantizationError
from tfq_bench.pipeline.cost import Meter
from tfq_bench.quant.state import QuantizedState
from tfq_bench.seeds import generator

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tfq_bench.border import CalibrationData
    from tfq_bench.protocols import LoadedModel, Progress, Quantizer

__all__ = ["FullPrecision", "quantize"]


class FullPrecision:
    """The quantizer `fp`: every layer stays as it is. What all other cells are compared with."""

    def __init__(self, *, scheme: Scheme) -> None:
        self.scheme = scheme

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:  # noqa: ARG002
        """Nothing."""
        return CalibrationNeeds()

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,  # noqa: ARG002
        *,
        generator: torch.Generator,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
        checkpoint: Path | None = None,  # noqa: ARG002
    ) -> QuantizedState:
        """A state without layers."""
        return QuantizedState(
            model=loaded.model.digest,
            method="fp",
            scheme=self.scheme,
            timesteps=loaded.sampler.timesteps,
            layers={},
            exempt={},
        )


def quantize(
    quantizer: Quantizer,
    loaded: LoadedModel,
    data: CalibrationData,
    *,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
) -> tuple[QuantizedState, dict[str, Any]]:
    """The state, and what making it cost.

    Returns:
        The state and `{"seconds", "peak_memory_bytes", "network_calls", "calibration_samples"}`,
        see `Meter`; stopped attempts that left a checkpoint are included.

    Raises:
        QuantizationError: the state names a layer that the model does not have, or was made for
            other timesteps than the sampler's.
    """
    with Meter(loaded, ledger=checkpoint) as meter:
        state = quantizer.quantize(
            loaded,
            data,
            generator=generator(seed, "quantize"),
            progress=meter.kept(progress),
            checkpoint=checkpoint,
        )
    known = {layer.name for layer in loaded.topology.layers}
    strangers = sorted(set(state.layers) - known)
    if strangers:
        raise QuantizationError(f"the state has layers that the model lacks: {strangers[:3]}.")
    if tuple(state.timesteps) != tuple(loaded.sampler.timesteps):
        raise QuantizationError(
            f"the state was made for {len(state.timesteps)} timesteps that differ from the "
            f"sampler's {len(loaded.sampler.timesteps)}."
        )
    return state, {**meter.facts, "calibration_samples": int(data.x.shape[0])}
