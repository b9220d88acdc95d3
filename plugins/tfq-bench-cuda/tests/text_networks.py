"""Tiny networks of diffusers with transformer blocks, quantized by hand: SD, SD-XL, DiT, PixArt."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from tfq_bench.api import LoadedModel, Lowered
from tfq_bench.quant.state.quantized_state import QuantizedLayer, QuantizedState
from tfq_bench.testing.by_hand import TIMESTEPS, quantized_layer
from tfq_bench.types import Layer, Scheme, Topology
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.blocks.fuse import BlockUse, fuse
from tfq_bench_cuda.blocks.share import share_modulations
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.layers import CudaLayer

__all__ = [
    "FAMILIES",
    "OpaqueKernels",
    "at_every_step",
    "load",
    "lower",
    "make_state",
    "predict",
    "steady",
]

CLASSES, TOKENS, TEXT = 5, 7, 24

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": TEXT,
}
TRANSFORMER = {
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "in_channels": 4,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
}


class OpaqueKernels(ReferenceKernels):
    """As compiled kernels look from outside: no operator of torch multiplies."""

    def linear(self, *args, **kwargs):
        with _disable_current_modes():
            return super().linear(*args, **kwargs)

    def conv2d(self, *args, **kwargs):
        with _disable_current_modes():
            return super().conv2d(*args, **kwargs)


class Sd:
    """A text, read by cross-attention."""

    digest, latent_shape, dtype = "sd", (4, 8, 8), torch.float32

    def build(self) -> nn.Module:
        return diffusers.UNet2DConditionModel(**UNET)

    def predict(self, network, x, timestep, condition) -> Tensor:
        dtype = next(network.parameters()).dtype
        given = {name: value.to(dtype) for name, value in condition.items()}
        return self.call(network, x.to(dtype), timestep, given).float()

    def call(self, network, x, timestep, given) -> Tensor:
        return network(x, timestep, encoder_hidden_states=given["text"]).sample

    def conditions(self, images, *, device: str) -> dict[str, Tensor]:
        return {"text": torch.stack([_numbers(i, TOKENS, TEXT) for i in images]).to(device)}

    def guidance(self, *, device: str) -> None:
        """None."""


class Sdxl(Sd):
    """Linear projections, and a pooled text and sizes beside the timestep."""

    digest = "sdxl"

    def build(self) -> nn.Module:
        return diffusers.UNet2DConditionModel(
            **UNET,
            use_linear_projection=True,
            transformer_layers_per_block=2,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 8,
        )

    def call(self, network, x, timestep, given) -> Tensor:
        added = {"text_embeds": given["pooled"], "time_ids": given["sizes"]}
        return network(
            x, timestep, encoder_hidden_states=given["text"], added_cond_kwargs=added
        ).sample

    def conditions(self, images, *, device: str) -> dict[str, Tensor]:
        sizes = torch.tensor([[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]])
        return {
            **super().conditions(images, device=device),
            "pooled": torch.stack([_numbers(1000 + i, 8) for i in images]).to(device),
            "sizes": sizes.expand(len(images), 6).to(device),
        }


class Dit(Sd):
    """Blocks that embed timestep and class themselves."""

    digest = "dit"

    def build(self) -> nn.Module:
        return diffusers.DiTTransformer2DModel(
            **TRANSFORMER, out_channels=4, norm_num_groups=4, num_embeds_ada_norm=CLASSES
        )

    def call(self, network, x, timestep, given) -> Tensor:
        return network(x, timestep, class_labels=given["label"].long()).sample

    def conditions(self, images, *, device: str) -> dict[str, Tensor]:
        return {"label": torch.tensor([image % CLASSES for image in images], device=device)}


class Pixart(Sd):
    """A caption that is projected first, with a mask."""

    digest = "pixart"

    def build(self) -> nn.Module:
        return diffusers.PixArtTransformer2DModel(
            **TRANSFORMER,
            out_channels=4,
            cross_attention_dim=32,
            caption_channels=TEXT,
            use_additional_conditions=False,
        )

    def call(self, network, x, timestep, given) -> Tensor:
        return network(
            x,
            given["text"],
            timestep,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            encoder_attention_mask=given["mask"],
        ).sample

    def conditions(self, images, *, device: str) -> dict[str, Tensor]:
        mask = torch.stack([(torch.arange(TOKENS) < 3 + i % 4).float() for i in images])
        return {**super().conditions(images, device=device), "mask": mask.to(device)}


FAMILIES = {"sd": Sd, "sdxl": Sdxl, "dit": Dit, "pixart": Pixart}


def load(family: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LoadedModel:
    """A network with random weights, the same each time."""
    model = FAMILIES[family]()
    model.dtype = dtype
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model.build().to(device, dtype).eval().requires_grad_(False)
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
        model=model,
        network=network,
        topology=Topology(layers=layers, blocks=()),
        sampler=SimpleNamespace(timesteps=TIMESTEPS),
        device=device,
    )


def make_state(loaded: LoadedModel, *, wbits: int = 8, abits: int = 8) -> QuantizedState:
    """Every layer, with tables by step around the range that its input has in one call."""
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Any:
        return lambda _, inputs: ranges.update({name: [float(v) for v in inputs[0].aminmax()]})

    modules = {
        layer.name: loaded.network.get_submodule(layer.name) for layer in loaded.topology.layers
    }
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    x = torch.randn(2, *loaded.model.latent_shape, generator=torch.Generator().manual_seed(1))
    predict(loaded, loaded.network, x.to(loaded.device))
    for handle in handles:
        handle.remove()
    return QuantizedState(
        model=loaded.model.digest,
        method="by hand",
        scheme=Scheme(wbits=wbits, abits=abits),
        timesteps=TIMESTEPS,
        layers={
            name: quantized_layer(
                name, copy.deepcopy(modules[name]).float().cpu(), *bounds, wbits=wbits, abits=abits
            )
            for name, bounds in ranges.items()
        },
        exempt={},
    )


def predict(loaded: LoadedModel, network: nn.Module, x: Tensor) -> Tensor:
    """One call at the middle timestep, its conditions those of the first images."""
    condition = loaded.model.conditions(range(len(x)), device=loaded.device)
    t = torch.full((len(x),), 500, device=loaded.device)
    return loaded.model.predict(network, x, t, condition)


def steady(layer: QuantizedLayer) -> QuantizedLayer:
    """The layer with the table of its first step at every step."""
    parts = []
    for part in layer.parts:
        table = part.activation
        first = dataclasses.replace(
            table,
            scale=table.scale[:1].expand_as(table.scale).clone(),
            zero_point=table.zero_point[:1].expand_as(table.zero_point).clone(),
        )
        parts.append(dataclasses.replace(part, activation=first))
    return dataclasses.replace(layer, parts=tuple(parts))


def at_every_step(state: QuantizedState, *names: str) -> QuantizedState:
    """The state with `steady` layers whose names end so."""
    layers = {
        name: steady(layer) if name.endswith(names) else layer
        for name, layer in state.layers.items()
    }
    return dataclasses.replace(state, layers=layers)


def lower(
    loaded: LoadedModel, state: QuantizedState, kernels: Any = None
) -> tuple[Lowered, list[BlockUse]]:
    """Lowered and fused; the kernels listed are those that fused blocks run."""
    backend = CudaBackend(kernels=kernels or OpaqueKernels(), batch=2, blocks=False)
    lowered = backend.lower(loaded, state)
    blocks = share_modulations(lowered.network, fuse(lowered.network))
    uses = []
    for use in lowered.kernels:
        layer = lowered.network.get_submodule(use.layer)
        kernel = layer.kernel if isinstance(layer, CudaLayer) else use.kernel
        uses.append(dataclasses.replace(use, kernel=kernel))
    return dataclasses.replace(lowered, kernels=tuple(uses)), blocks


def _numbers(image: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(image))
