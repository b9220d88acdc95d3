"""A full-precision model becomes a `QuantizedState`: data, no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tfq_bench.errors import QuantizationError
from tfq_bench.foreign.text import printable
from tfq_bench.pipeline.cost import Meter
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.seeds import generator

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.protocols import Quantizer
    from tfq_bench.types import CalibrationData, Scheme
    from tfq_bench.types.networks import LoadedModel
    from tfq_bench.types.tasks import Progress

__all__ = ["full_precision", "quantize"]


def full_precision(*, scheme: Scheme) -> NoReturn:
    """What stands behind the quantizer `fp`, for which no stage asks: nothing is quantized."""
    raise QuantizationError(
        f"'fp' ({scheme.label}) is the model as it is; there is nothing to quantize."
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
        QuantizationError: what came back is no state of this model and these timesteps, or does
            not say of every layer what becomes of it.
    """
    with Meter(loaded, ledger=checkpoint) as meter:
        state = quantizer.quantize(
            loaded,
            data,
            generator=generator(seed, "quantize"),
            progress=meter.kept(progress),
            checkpoint=checkpoint,
        )
    _check(state, loaded)
    return state, {**meter.facts, "calibration_samples": int(data.x.shape[0])}


def _check(state: object, loaded: LoadedModel) -> None:
    """Nothing, when `state` is one of this model in which no layer is forgotten."""
    if not isinstance(state, QuantizedState):
        raise QuantizationError(
            f"the quantizer is expected to return a QuantizedState, found {type(state).__name__}."
        )
    if state.model != loaded.model.digest:
        raise QuantizationError(
            f"the state says that it is of model {printable(state.model, 80)}, it was made from "
            f"{loaded.model.digest}."
        )
    layers = {layer.name: layer for layer in loaded.topology.layers}
    held = [*state.layers, *state.exempt]
    strangers = sorted(set(held) - set(layers))
    if strangers:
        raise QuantizationError(f"the state has layers that the model lacks: {strangers[:3]}.")
    if tuple(state.timesteps) != tuple(loaded.sampler.timesteps):
        raise QuantizationError(
            f"the state was made for {len(state.timesteps)} timesteps that differ from the "
            f"sampler's {len(loaded.sampler.timesteps)}."
        )
    forgotten = sorted(set(layers) - set(held) - state.dropped(loaded.topology))
    if forgotten:
        raise QuantizationError(
            f"the state forgets {len(forgotten)} of the model's {len(layers)} layers, which would "
            f"stay in full precision unseen: {forgotten[:3]}. A layer is quantized, or exempt "
            "with a reason."
        )
    channels = loaded.model.latent_shape[0]
    if state.correction is not None and state.correction.bias.shape[1] != channels:
        raise QuantizationError(
            f"the sampler's correction has biases of {state.correction.bias.shape[1]} channels, "
            f"the model predicts {channels}."
        )
    silent = [name for name, reason in state.exempt.items() if not str(reason).strip()]
    if silent:
        raise QuantizationError(f"layers are exempt without a reason: {silent[:3]}.")
    for name, layer in state.layers.items():
        shape = list(layer.parts[0].weight.shape)
        shape[1] = sum(part.weight.shape[1] for part in layer.parts)
        expected = layers[name]
        if layer.kind != expected.kind or tuple(shape) != tuple(expected.weight_shape):
            raise QuantizationError(
                f"layer '{name}' is {expected.kind} {tuple(expected.weight_shape)}, the state has "
                f"{layer.kind} {tuple(shape)}."
            )
