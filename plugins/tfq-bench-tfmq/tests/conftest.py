"""The tiny model with its temporal block, and tiny networks whose projections read a condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import diffusers
import pytest
import torch
from torch import Tensor, nn

from tfq_bench.api import Guidance, LoadedModel, Scheme
from tfq_bench.quant import trace_topology
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Role
from tfq_bench_tfmq.block import TemporalBlock
from tfq_bench_tfmq.find_block import find_temporal_block
from tfq_bench_tfmq.presets import layer_plan


@pytest.fixture
def loaded() -> LoadedModel:
    """The tiny model."""
    return load_tiny(steps=6)


@pytest.fixture
def block(loaded) -> TemporalBlock:
    """Its temporal block: two layers of the time MLP and two projections."""
    return find_temporal_block(loaded)


@pytest.fixture
def fake_quant(loaded) -> FakeQuantNetwork:
    """Weights rounded to nearest at 4 bits."""
    return FakeQuantNetwork(loaded, layer_plan(loaded, Scheme(wbits=4, abits=8)), weights="mse")


@pytest.fixture
def load_family() -> Callable[..., LoadedModel]:
    """Makes a model of a family: `sdxl`, `class-unet` or `dit`."""
    return _load


UNET = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
CLASSES = 5


def _numbers(image: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(image))


class Sdxl:
    """Text and sizes are added to the time embedding; guided, so that rows alternate."""

    digest, latent_shape, dtype = "sdxl", (4, 8, 8), torch.float32
    features = ("time_embedding.linear_2",)

    def build(self) -> nn.Module:
        return diffusers.UNet2DConditionModel(
            **UNET,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 8,
        )

    def predict(self, network, x, timestep, condition):
        added = {"text_embeds": condition["pooled"], "time_ids": condition["sizes"]}
        return network(
            x, timestep, encoder_hidden_states=condition["text"], added_cond_kwargs=added
        ).sample

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:
        sizes = torch.tensor([[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]])
        return {
            "text": torch.stack([_numbers(i, 3, 8) for i in images]).to(device),
            "pooled": torch.stack([_numbers(1000 + i, 8) for i in images]).to(device),
            "sizes": sizes.expand(len(images), 6).to(device),
        }

    def guidance(self, *, device: str) -> Guidance:
        nothing = {"text": torch.zeros(1, 3, 8), "pooled": torch.zeros(1, 8)}
        return Guidance(scale=3.0, condition={k: v.to(device) for k, v in nothing.items()})


class ClassUnet:
    """The embedding of a class is added to the time embedding."""

    digest, latent_shape, dtype = "class-unet", (3, 8, 8), torch.float32
    features = ("time_embedding.linear_2",)

    def build(self) -> nn.Module:
        return diffusers.UNet2DModel(
            **UNET,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            num_class_embeds=CLASSES,
        )

    def predict(self, network, x, timestep, condition):
        return network(x, timestep, class_labels=condition["label"]).sample

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:
        return {"label": torch.tensor([image % CLASSES for image in images], device=device)}

    def guidance(self, *, device: str) -> None:
        """None."""


class Dit(ClassUnet):
    """Each block has a time MLP and a class embedding of its own."""

    digest, latent_shape = "dit", (4, 8, 8)
    features = tuple(
        f"transformer_blocks.{i}.norm1.emb.timestep_embedder.linear_2" for i in range(3)
    )

    def build(self) -> nn.Module:
        return diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            sample_size=8,
            patch_size=2,
            norm_num_groups=4,
            num_embeds_ada_norm=CLASSES,
        )


FAMILIES = {"sdxl": Sdxl, "class-unet": ClassUnet, "dit": Dit}


def _load(family: str, *, steps: int = 4) -> LoadedModel:
    """A tiny model with random weights, the same each time."""
    model = FAMILIES[family]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model.build().eval().requires_grad_(False)

    def call(network: nn.Module) -> None:
        x, t = torch.zeros(1, *model.latent_shape), torch.tensor([1])
        model.predict(network, x, t, model.conditions([0], device="cpu"))

    topology = trace_topology(network, call, _role, _block, time_features=model.features)
    return LoadedModel(
        model=model,
        network=network,
        topology=topology,
        sampler=load_tiny(steps=steps).sampler,
        device="cpu",
    )


def _role(name: str, module: nn.Module) -> Role:
    if "time_embedding." in name or "timestep_embedder." in name:
        return "time-mlp"
    if name.endswith(("time_emb_proj", "norm1.linear", "proj_out_1")):
        return "time-projection"
    if name.startswith("add_embedding."):
        return "condition"
    if name in ("conv_in", "pos_embed.proj"):
        return "input"
    if name in ("conv_out", "proj_out_2"):
        return "output"
    if ".ff." in name:
        return "feed-forward"
    if "attn" in name or "attentions" in name:
        return "attention"
    return "shortcut" if "shortcut" in name else "conv"


def _block(name: str) -> str:
    """The outermost residual, attention or transformer block around a layer, else the layer."""
    parts = name.split(".")
    for kind in ("resnets", "attentions", "transformer_blocks"):
        if kind in parts:
            return ".".join(parts[: parts.index(kind) + 2])
    return name
