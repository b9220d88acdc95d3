"""A tiny U-Net with a quantized state made by hand: per-step tables, one split layer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tfq_bench.api import Layer, LoadedModel, Scheme, Topology
from tfq_bench.quant.qparams import ActivationTable
from tfq_bench.quant.state import LayerPart, QuantizedLayer, QuantizedState

TIMESTEPS = (900, 500, 100)


class TinyModel:
    """The part of a `Model` that a backend sees."""

    digest = "tiny"

    def predict(self, network, x, timestep, condition):
        """The network's epsilon."""
        return network(x, timestep).sample


def part_of(weight, start, stop, *, wbits, activation) -> LayerPart:
    """Round-to-nearest symmetric codes of the input channels [start, stop)."""
    weight = weight[:, start:stop]
    half = 2 ** (wbits - 1)
    scale = weight.flatten(1).abs().amax(1) / (half - 1)
    wide = scale.view(-1, *[1] * (weight.dim() - 1))
    return LayerPart(
        start=start,
        stop=stop,
        weight=(torch.round(weight / wide) + half).to(torch.uint8),
        scale=scale,
        zero_point=torch.full_like(scale, half, dtype=torch.int32),
        activation=activation,
    )


def table_of(low, high, *, abits) -> ActivationTable:
    """Tables for ranges that grow from step to step, with zero points that differ."""
    growth = torch.linspace(1.0, 1.5, len(TIMESTEPS))
    low, high = min(float(low), 0.0) * growth, max(float(high), 1e-3) * growth.flip(0)
    scale = (high - low) / (2**abits - 1)
    return ActivationTable(
        bits=abits, scale=scale, zero_point=torch.round(-low / scale).to(torch.int32)
    )


@pytest.fixture
def quantized() -> Callable[..., QuantizedLayer]:
    """Makes a `QuantizedLayer` of a module: `quantized(name, module, low, high, ...)`."""

    def make(name, module, low=-3.0, high=4.0, *, wbits=8, abits=8, split=None):
        weight, width = module.weight.detach(), module.weight.shape[1]
        bounds = [(0, width)] if split is None else [(0, split), (split, width)]
        parts = tuple(
            part_of(
                weight,
                start,
                stop,
                wbits=wbits,
                # Parts have ranges of their own: that is what a split is for.
                activation=table_of(low * (1 + i), high * (1 + i), abits=abits),
            )
            for i, (start, stop) in enumerate(bounds)
        )
        return QuantizedLayer(
            name=name,
            kind="conv2d" if isinstance(module, nn.Conv2d) else "linear",
            wbits=wbits,
            parts=parts,
            bias=None if module.bias is None else module.bias.detach(),
        )

    return make


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """A `UNet2DModel` with fresh weights, attention and concatenations."""
    from diffusers import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet2DModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=8,
            norm_num_groups=8,
        )
    network.eval().requires_grad_(False)
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
    return LoadedModel(
        model=TinyModel(),
        network=network,
        topology=Topology(layers=layers, blocks=()),
        sampler=SimpleNamespace(timesteps=TIMESTEPS),
        device="cpu",
    )


@pytest.fixture
def images() -> torch.Tensor:
    """Network inputs, float32 `[2, 3, 8, 8]`."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_state(loaded, images, quantized) -> Callable[..., QuantizedState]:
    """Makes a state of the tiny U-Net with ranges seen on one input: `make_state(wbits=4)`."""

    def make(*, wbits=8, abits=8):
        ranges = {}
        handles = [
            loaded.network.get_submodule(layer.name).register_forward_pre_hook(
                lambda _, args, name=layer.name: ranges.update({name: args[0].aminmax()})
            )
            for layer in loaded.topology.layers
        ]
        loaded.model.predict(loaded.network, images, torch.full((2,), 500), {})
        for handle in handles:
            handle.remove()
        layers = {}
        for name, seen in ranges.items():
            # The first residual block of the way up reads a concatenation.
            split = 64 if name == "up_blocks.0.resnets.0.conv1" else None
            module = loaded.network.get_submodule(name)
            layers[name] = quantized(name, module, *seen, wbits=wbits, abits=abits, split=split)
        return QuantizedState(
            model="tiny",
            method="by hand",
            scheme=Scheme(wbits=wbits, abits=abits),
            timesteps=TIMESTEPS,
            layers=layers,
            exempt={},
        )

    return make
