"""Quantized states made by hand for tests of backends: tables that differ by step, split layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tfq_bench.quant.state.affine import per_channel
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.types import Layer, Scheme, Topology
from tfq_bench.types.networks import LoadedModel

if TYPE_CHECKING:
    from tfq_bench.quant.layers import WeightedLayer

__all__ = ["loaded_unet", "quantized_layer", "quantized_unet"]

TIMESTEPS = (900, 500, 100)


class _Model:
    """The part of a `Model` that a backend sees, of a U-Net as diffusers builds them."""

    digest = "tiny"

    def predict(self, network: Any, x: Tensor, timestep: Tensor, condition: Any) -> Any:  # noqa: ARG002
        return network(x, timestep).sample


def quantized_layer(
    name: str,
    module: WeightedLayer,
    low: float = -3.0,
    high: float = 4.0,
    *,
    wbits: int = 8,
    abits: int = 8,
    split: int | None = None,
) -> QuantizedLayer:
    """A layer of `module` with symmetric weights and a table for each of three steps.

    Args:
        low, high: of its input at some step.
        split: the first input channel of a second part, None for one part.
    """
    weight, width = module.weight.detach(), module.weight.shape[1]
    bounds = [(0, width)] if split is None else [(0, split), (split, width)]
    return QuantizedLayer(
        name=name,
        kind="conv2d" if isinstance(module, nn.Conv2d) else "linear",
        wbits=wbits,
        parts=tuple(
            # Parts have ranges of their own: that is what a split is for.
            _part(weight, start, stop, wbits, _table(low * (1 + i), high * (1 + i), abits))
            for i, (start, stop) in enumerate(bounds)
        ),
        bias=None if module.bias is None else module.bias.detach(),
    )


def loaded_unet(network: nn.Module) -> LoadedModel:
    """`network`, called as diffusers' U-Nets are, with all of its layers and three timesteps."""
    layers = tuple(
        Layer(
            name=name,
            kind="conv2d" if isinstance(module, nn.Conv2d) else "linear",
            role="other",
            block=name,
            weight_shape=tuple(module.weight.shape),
            macs=module.weight.numel(),
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    )
    model, sampler = _Model(), SimpleNamespace(timesteps=TIMESTEPS)
    return LoadedModel(
        model=model,  # type: ignore[arg-type]
        network=network,
        topology=Topology(layers=layers, blocks=()),
        sampler=sampler,
        device="cpu",
    )


def quantized_unet(
    loaded: LoadedModel,
    x: Tensor,
    *,
    wbits: int = 8,
    abits: int = 8,
    splits: Mapping[str, int] | None = None,
) -> QuantizedState:
    """Every layer of `loaded`, with the ranges that its input has when the network sees `x`.

    Args:
        splits: the first input channel of a second part, by layer.
    """
    ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Any:
        return lambda _, inputs: ranges.update({name: tuple(inputs[0].aminmax())})

    modules = {
        layer.name: loaded.network.get_submodule(layer.name) for layer in loaded.topology.layers
    }
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    loaded.model.predict(loaded.network, x, torch.full((len(x),), 500), {})
    for handle in handles:
        handle.remove()
    layers = {
        name: quantized_layer(
            name,
            modules[name],  # type: ignore[arg-type]
            float(low),
            float(high),
            wbits=wbits,
            abits=abits,
            split=(splits or {}).get(name),
        )
        for name, (low, high) in ranges.items()
    }
    return QuantizedState(
        model=loaded.model.digest,
        method="by hand",
        scheme=Scheme(wbits=wbits, abits=abits),
        timesteps=TIMESTEPS,
        layers=layers,
        exempt={},
    )


def _part(
    weight: Tensor, start: int, stop: int, wbits: int, activation: ActivationQParams
) -> LayerPart:
    """Round-to-nearest symmetric codes of the input channels [start, stop)."""
    weight = weight[:, start:stop]
    half = 2 ** (wbits - 1)
    scale = weight.flatten(1).abs().amax(1) / (half - 1)
    return LayerPart(
        start=start,
        stop=stop,
        weight=(torch.round(weight / per_channel(scale, weight)) + half).to(torch.uint8),
        scale=scale,
        zero_point=torch.full_like(scale, half, dtype=torch.int32),
        activation=activation,
    )


def _table(low: float, high: float, abits: int) -> ActivationQParams:
    """Ranges that grow from step to step at one end and shrink at the other."""
    growth = torch.linspace(1.0, 1.5, len(TIMESTEPS))
    bottom, top = min(low, 0.0) * growth, max(high, 1e-3) * growth.flip(0)
    scale = (top - bottom) / (2**abits - 1)
    return ActivationQParams(
        bits=abits, scale=scale, zero_point=torch.round(-bottom / scale).to(torch.int32)
    )
