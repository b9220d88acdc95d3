"""A quantized state in seconds, whatever the network's size: made where the weights are.

Round to nearest under policy `uniform`, ranges from minimum to maximum: of a weight, each output
channel's; of an input, what three calls show. They read noise, as the timed call does, not states
of a trajectory. Codes stay on the weights' device, where `RoundToNearest` brings them to the CPU.
Every layer gets a table with an entry for each step, that of the nearest step looked at; a layer
that sees no timestep, such as the keys of a prompt, has equal ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpu.networks import middle
from tfq_bench.api import CalibrationData, LoadedModel, Scheme, timestep_tensor
from tfq_bench.quant import (
    InputRanges,
    LayerBits,
    LayerPart,
    QuantizedLayer,
    QuantizedState,
    activation_qparams,
    exemptions,
    find_layer,
    find_policy,
    input_parts,
    observe_inputs,
    resolve,
    round_weight,
)
from tfq_bench.seeds import noise

Ranges = dict[str, tuple[Tensor, Tensor]]
"""Lowest and highest input of each layer, float32 `[T]` each."""


@torch.no_grad()
def observed_ranges(loaded: LoadedModel, *, images: int = 1) -> Ranges:
    """One call for each of three steps: the first, the one that is timed, and the last."""
    last = len(loaded.sampler.timesteps) - 1
    steps = sorted({0, middle(loaded), last})
    seen = [_ranges(loaded, noise_calls(loaded, step, images)) for step in steps]
    nearest = [
        min(range(len(steps)), key=lambda i: abs(steps[i] - step)) for step in range(last + 1)
    ]
    return {
        layer.name: tuple(
            torch.cat([seen[i].range(layer.name, 8)[end] for i in nearest]) for end in (0, 1)
        )
        for layer in loaded.topology.layers
    }


def noise_calls(loaded: LoadedModel, step: int, images: int) -> CalibrationData:
    """Noise as the states of so many images at one step."""
    index = torch.arange(images, device=loaded.device)
    return CalibrationData(
        x=noise(1, "calibration", range(images), loaded.model.latent_shape, device=loaded.device),
        timestep=timestep_tensor(loaded.sampler.timesteps[step], images, loaded.device),
        step=torch.full_like(index, step),
        image=index,
        condition=loaded.model.conditions(range(images), device=loaded.device),
    )


def _ranges(loaded: LoadedModel, data: CalibrationData) -> InputRanges:
    ranges = InputRanges("minmax", batches=1, generator=torch.Generator())
    observe_inputs(loaded, data, batch=len(data.x), observe=ranges.update)
    return ranges


@torch.no_grad()
def rounded_state(loaded: LoadedModel, ranges: Ranges, *, wbits: int) -> QuantizedState:
    """The state at `wbits` and 8 bits, its weights on the network's device."""
    scheme = Scheme(wbits=wbits, abits=8)
    plan = resolve(find_policy(scheme.policy), loaded.topology, scheme)
    layers = {}
    for layer in loaded.topology.layers:
        bits = plan[layer.name]
        if not isinstance(bits, LayerBits):
            continue
        module = find_layer(loaded.network, layer.name)
        codes, scale, zero_point = round_weight(module.weight, bits.wbits)
        ((start, stop),) = input_parts(layer, module, split=False)
        part = LayerPart(
            start=start,
            stop=stop,
            weight=codes,
            scale=scale,
            zero_point=zero_point,
            activation=activation_qparams(*ranges[layer.name], bits=bits.abits),
        )
        layers[layer.name] = QuantizedLayer(
            name=layer.name,
            kind=layer.kind,
            wbits=bits.wbits,
            parts=(part,),
            bias=None if module.bias is None else module.bias.detach().float(),
        )
    exempt, half = exemptions(plan)
    return QuantizedState(
        model=loaded.model.digest,
        method="rtn",
        scheme=scheme,
        timesteps=tuple(loaded.sampler.timesteps),
        layers=layers,
        exempt=exempt,
        half=half,
    )
