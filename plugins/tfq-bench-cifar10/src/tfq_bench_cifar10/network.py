"""The three networks and their noise schedule, as constants of code.

Each is a class of diffusers in small, predicting epsilon over 1,000 linear-beta steps, under 8 M
parameters, so that its float16 weights stay under 16 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel

__all__ = [
    "CLASSES",
    "NETWORKS",
    "NO_CLASS",
    "TOKENS_SHAPE",
    "TRAIN_STEPS",
    "Network",
    "alphas_cumprod",
    "betas",
    "build_conditional",
    "build_dit",
    "build_trainable",
    "build_unet",
    "class_table",
]

TRAIN_STEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
CLASSES = 10
NO_CLASS = CLASSES
"""Index of what the network is told when it is to know no class."""
TOKENS_SHAPE = (CLASSES + 1, 4, 128)
"""Of the table of class tokens: classes and none, tokens of each, channels of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What training, export and model need to know of one of the networks.

    Args:
        name: as given to `--network`.
        model: name of the model that is made of it.
        file: its weights are `weights/<file>.safetensors`, where they come from `<file>.json`.
        build: from the dropout rate, the network with fresh weights.
        state: the argument of its `forward` that takes the noisy images.
        argument: the argument that takes the condition, empty when it knows none.
        tokens: whether a class is told as a learned sequence of tokens, trained with the network,
            instead of as its index.
    """

    name: str
    model: str
    file: str
    build: Callable[[float], nn.Module]
    state: str = "sample"
    argument: str = ""
    tokens: bool = False


def build_unet(dropout: float = 0.0) -> UNet2DModel:
    """DDPM's network with fresh weights, taking `[B, 3, 32, 32]` in [-1, 1] and t in 0..999."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=64,
        norm_num_groups=32,
        dropout=dropout,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        norm_eps=1e-6,
    )


def build_conditional(dropout: float = 0.0) -> UNet2DConditionModel:
    """Stable Diffusion's network in small: cross-attention to four tokens at 16x16 and 8x8.

    It takes `[B, 3, 32, 32]`, t in 0..999 and the tokens `[B, 4, 128]`. The widths divide by 32,
    which its group normalization asks for.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(96, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TOKENS_SHAPE[-1],
        attention_head_dim=4,  # diffusers takes it for the number of heads: 32 channels each
        dropout=dropout,
    )


def build_dit(dropout: float = 0.0) -> DiTTransformer2DModel:
    """DiT (arXiv:2212.09748) in small: 10 layers of 6 heads on 16x16 patches of 2x2 pixels.

    It takes `[B, 3, 32, 32]`, t in 0..999 and class indices `[B]`, 10 for none. Like the original
    it has embedders of t and of the class in every layer, 12% of its 7.6 M parameters. It starts
    as the identity ("adaLN-Zero"), which diffusers, made for trained weights, does not do.
    """
    from diffusers import DiTTransformer2DModel

    network = DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=3,
        num_layers=10,
        sample_size=32,
        patch_size=2,
        num_embeds_ada_norm=CLASSES,  # diffusers adds the row for no class
        dropout=dropout,
    )
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    patches = network.pos_embed.proj
    nn.init.xavier_uniform_(patches.weight.flatten(1))
    nn.init.zeros_(patches.bias)
    gates = [network.proj_out_1, network.proj_out_2]
    for block in network.transformer_blocks:
        embedder = block.norm1.emb
        # Each layer would drop labels by itself, from the global generator; the training does it.
        embedder.class_embedder.dropout_prob = 0.0
        nn.init.normal_(embedder.class_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(embedder.timestep_embedder.linear_1.weight, std=0.02)
        nn.init.normal_(embedder.timestep_embedder.linear_2.weight, std=0.02)
        gates.append(block.norm1.linear)
    for gate in gates:
        nn.init.zeros_(gate.weight)
    return network


NETWORKS = {
    network.name: network
    for network in (
        Network(name="unet", model="cifar10", file="unet-ddpm", build=build_unet),
        Network(
            name="conditional",
            model="cifar10-conditional",
            file="conditional-ddpm",
            build=build_conditional,
            argument="encoder_hidden_states",
            tokens=True,
        ),
        Network(
            name="dit",
            model="cifar10-dit",
            file="dit-ddpm",
            build=build_dit,
            state="hidden_states",
            argument="class_labels",
        ),
    )
}


def build_trainable(network: Network, dropout: float = 0.0) -> nn.Module:
    """The network with fresh weights and, where it is told tokens, their table `class_tokens`.

    The table is float32 `TOKENS_SHAPE`, the last row for no class. It is a parameter of the
    network for as long as it is trained; a loaded network is told the rows from outside.
    """
    module = network.build(dropout)
    if network.tokens:
        # As large as what a text encoder's last normalization gives.
        module.class_tokens = nn.Parameter(torch.randn(TOKENS_SHAPE))
    return module


def class_table(tokens: torch.Tensor | None) -> torch.Tensor:
    """What a network is told of each class, `[11, ...]`: its tokens, or else its index."""
    return torch.arange(CLASSES + 1) if tokens is None else tokens


def betas() -> torch.Tensor:
    """float64 `[1000]`, beta_t (DDPM, section 4)."""
    return torch.linspace(BETA_START, BETA_END, TRAIN_STEPS, dtype=torch.float64)


def alphas_cumprod() -> torch.Tensor:
    """float64 `[1000]`, the cumulative product of 1 - beta_t."""
    return torch.cumprod(1.0 - betas(), dim=0)
