"""A tiny U-Net with a quantized state made by hand: per-step tables, one split layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tfq_bench.api import LoadedModel, StepCursor, timestep_tensor
from tfq_bench.quant import replace_layer
from tfq_bench.quant.state.quantized_state import QuantizedLayer, QuantizedState
from tfq_bench.seeds import noise
from tfq_bench.testing.by_hand import loaded_unet, quantized_layer, quantized_unet
from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import Ending
from tfq_bench_cuda.kernels.tiles import TileChoice
from tfq_bench_cuda.network import kernel_layer
from tfq_bench_cuda.weights import moved

__all__ = ["plugin_host"]

ENDINGS = {
    "shift": Ending(shift=True, out="bfloat16"),
    "gate": Ending(gate=True, out="float32"),
    "residual": Ending(residual="bfloat16", out="bfloat16"),
    "float16 residual": Ending(residual="float16", out="float16"),
    "float32 residual": Ending(residual="float32", out="float32"),
    "codes": Ending(out="int8"),
    "4-bit codes": Ending(out="int8", bits=4),
    "all": Ending(partial=True, shift=True, gate=True, residual="bfloat16", out="int8"),
    "silu": Ending(activation="silu", out="float32"),
    "gelu": Ending(activation="gelu", out="bfloat16"),
    "gelu-tanh to codes": Ending(activation="gelu-tanh", out="int8"),
    "gated": Ending(shift=True, activation="silu", gate=True, residual="float16", out="float16"),
    "geglu": Ending(activation="geglu", out="bfloat16"),
    "geglu to codes": Ending(activation="geglu", out="int8"),
}


@pytest.fixture(params=ENDINGS.values(), ids=ENDINGS)
def ending(request) -> Ending:
    """Each thing that may become of a sum, alone and as blocks combine them."""
    return request.param


@pytest.fixture
def quantized() -> Callable[..., QuantizedLayer]:
    """Makes a `QuantizedLayer` of a module: `quantized(name, module, low, high, ...)`."""
    return quantized_layer


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
    return loaded_unet(network)


@pytest.fixture
def images() -> torch.Tensor:
    """Network inputs, float32 `[2, 3, 8, 8]`."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def layer_outputs() -> Callable[..., dict[str, torch.Tensor]]:
    """What each layer gave in one call: `layer_outputs(loaded, state, lowered, step)`."""

    def outputs(loaded, state, lowered, step=0):
        found = {}
        handles = [
            lowered.network.get_submodule(name).register_forward_hook(
                lambda _, args, output, name=name: found.update({name: output.clone()})
            )
            for name in state.layers
        ]
        lowered.step.set(step)
        x = noise(0, "layers", range(2), loaded.model.latent_shape, device=loaded.device)
        t = timestep_tensor(loaded.sampler.timesteps[step], 2, loaded.device)
        condition = loaded.model.conditions(range(2), device=loaded.device)
        loaded.model.predict(lowered.network, x, t, condition)
        for handle in handles:
            handle.remove()
        return found

    return outputs


@pytest.fixture
def make_state(loaded, images) -> Callable[..., QuantizedState]:
    """Makes a state of the tiny U-Net with ranges seen on one input: `make_state(wbits=4)`."""
    # The first residual block of the way up reads a concatenation.
    splits = {"up_blocks.0.resnets.0.conv1": 64}
    return lambda **bits: quantized_unet(loaded, images, splits=splits, **bits)


@pytest.fixture
def kernel_block() -> Callable[..., tuple[nn.Module, StepCursor, dict[str, int]]]:
    """Makes a copy of a block whose layers are kernels: `kernel_block(block, inputs, wbits=4)`.

    It is on the device and in the type of `inputs`, its group norms are no longer those of a fresh
    one, and ranges are those that layers see when it is called with them. `splits` gives the first
    channel of a layer's second part; layers in `keep` stay as they are.
    """

    def lowered(block, inputs, *, kernels=None, splits=None, keep=(), **bits):
        block = copy.deepcopy(block).requires_grad_(False)
        for module in block.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
        block.to(inputs[0].device, inputs[0].dtype)
        layers = {
            name: module
            for name, module in block.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and name not in keep
        }
        ranges = {}
        handles = [
            module.register_forward_pre_hook(
                lambda _, args, name=name: ranges.update({name: args[0].float().aminmax()})
            )
            for name, module in layers.items()
        ]
        block(*inputs)
        for handle in handles:
            handle.remove()
        kernels = kernels or ReferenceKernels()
        step, executed = StepCursor(inputs[0].device), {}
        tiles = TileChoice(arch=getattr(kernels, "arch", "sm_90a"), rows=1024)
        for name, module in layers.items():
            low, high = (float(end) for end in ranges[name])
            full = copy.deepcopy(module).float().cpu()
            layer = quantized_layer(name, full, low, high, split=(splits or {}).get(name), **bits)
            kernel = kernel_layer(
                moved(layer, module.weight.device), module, kernels, step, executed, tiles
            )
            replace_layer(block, name, kernel)
        return block, step, executed

    return lowered


@pytest.fixture
def distance() -> Callable[..., float]:
    """How far a fused block is from its layers one by one: `distance(block, step, *inputs)`.

    Root mean square over that of the layers, the largest of all steps. What comes out must be
    channels last in memory, unless `laid_out` is False.
    """

    def measured(block, step, *inputs, laid_out=True):
        found = []
        for index in range(3):
            step.set(index)
            single = type(block).forward(block, *inputs)
            together = block(*inputs)
            assert (single.shape, single.dtype) == (together.shape, together.dtype)
            assert not laid_out or together.is_contiguous(memory_format=torch.channels_last)
            apart = (together.double() - single.double()).square().mean().sqrt()
            found.append(float(apart / single.double().square().mean().sqrt()))
        return max(found)

    return measured
