"""Quantized weights of the whole network, activations float: rounded to nearest, or learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import QuantizationError
from tfq_bench.quant import (
    Exempt,
    FakeQuantNetwork,
    LayerBits,
    LayerPart,
    QuantizedLayer,
    QuantizedState,
    Reconstruction,
    ScaleJitter,
    WeightedLayer,
    exemptions,
    find_layer,
    per_channel,
    quantize,
    reconstruct,
)
from tfq_bench_ptq4dm.ranges import weight_grid

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.api import CalibrationData, Layer, LoadedModel, Progress, Scheme

__all__ = ["learned", "rounded"]

METHOD = "ptq4dm"

Plan = Mapping[str, LayerBits | Exempt]


@torch.no_grad()
def rounded(
    loaded: LoadedModel,
    plan: Plan,
    scheme: Scheme,
    *,
    jitter: ScaleJitter,
    progress: Callable[[float], None],
) -> QuantizedState:
    """Every weight rounded to nearest on its channel's grid, as the released script does.

    Args:
        plan: bits or exemption by layer name.
        jitter: of the grids' scales. progress: called with the finished fraction.

    Raises:
        QuantizationError: weights that are not finite.
    """
    layers: dict[str, QuantizedLayer] = {}
    for number, layer in enumerate(loaded.topology.layers, start=1):
        bits = plan[layer.name]
        if isinstance(bits, LayerBits):
            layers[layer.name] = _rounded_layer(loaded, layer, bits.wbits, jitter)
        progress(number / len(loaded.topology.layers))
    exempt, half = exemptions(plan)
    return QuantizedState(
        model=loaded.model.digest,
        method=METHOD,
        scheme=scheme,
        timesteps=tuple(loaded.sampler.timesteps),
        layers=layers,
        exempt=exempt,
        half=half,
    )


def learned(
    loaded: LoadedModel,
    plan: Plan,
    scheme: Scheme,
    data: CalibrationData,
    *,
    options: Reconstruction,
    generator: torch.Generator,
    progress: Progress,
    checkpoint: Path | None,
) -> QuantizedState:
    """The same grids, on which rounding is learned block by block (AdaRound), activations float.

    Raises:
        CalibrationError: no samples, or a block that never ran.
        QuantizationError: weights that are not finite, a network that is not in float32, or
            learning that diverged.
    """
    network = FakeQuantNetwork(loaded, plan, symmetric_weights=True)
    for name, layer in network.layers.items():
        layer.set_weight_grids([_grid(name, find_layer(loaded.network, name), layer.bits.wbits)])
    reconstruct(
        network,
        data,
        options=options,
        generator=generator,
        progress=progress,
        checkpoint=checkpoint,
    )
    return network.freeze(METHOD, scheme)


def _grid(name: str, module: WeightedLayer, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return weight_grid(module.weight.detach().flatten(1), bits)
    except QuantizationError as error:
        raise QuantizationError(f"weight of layer '{name}': {error}") from error


def _rounded_layer(
    loaded: LoadedModel, layer: Layer, bits: int, jitter: ScaleJitter
) -> QuantizedLayer:
    module = find_layer(loaded.network, layer.name)
    weight = module.weight.detach().float()
    scale, zero_point = _grid(layer.name, module, bits)
    scale = scale * jitter.factors(layer.name, len(scale)).to(scale.device)
    codes = quantize(weight, per_channel(scale, weight), per_channel(zero_point, weight), bits)
    return QuantizedLayer(
        name=layer.name,
        kind=layer.kind,
        wbits=bits,
        parts=(
            LayerPart(
                start=0,
                stop=weight.shape[1] * getattr(module, "groups", 1),
                weight=codes.cpu(),
                scale=scale.cpu(),
                zero_point=zero_point.cpu(),
            ),
        ),
        bias=None if module.bias is None else module.bias.detach().float().cpu().clone(),
    )
