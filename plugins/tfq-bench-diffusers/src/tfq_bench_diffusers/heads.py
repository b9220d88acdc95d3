"""U-Nets whose heads differ in size from level to level.

diffusers' `UNet2DModel` has one size of heads for all levels. A configuration that lists one per
level, as `attention_head_dim`, is refused by diffusers and read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["head_sizes", "set_heads", "without_heads"]


def head_sizes(config: Mapping[str, Any]) -> list[int]:
    """Channels of a head at each level of a `UNet2DModel`, the highest resolution first."""
    channels = list(config["block_out_channels"])
    size = config.get("attention_head_dim", 8)
    if isinstance(size, list | tuple):
        return [int(one) for one in size]
    return channels if size is None else [int(size)] * len(channels)


def without_heads(config: Mapping[str, Any]) -> dict[str, Any]:
    """What to change in a configuration so that diffusers can build the network.

    The size of heads changes no weight.
    """
    listed = isinstance(config.get("attention_head_dim"), list | tuple)
    plain = config.get("_class_name") == "UNet2DModel" and listed
    return {"attention_head_dim": head_sizes(config)[0]} if plain else {}


def set_heads(network: nn.Module, config: Mapping[str, Any]) -> None:
    """Gives a network that was built `without_heads` the sizes of its configuration."""
    from diffusers.models.attention_processor import Attention

    if not without_heads(config):
        return
    sizes = head_sizes(config)
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            part, _, rest = name.partition(".")
            level = int(rest.partition(".")[0]) if part != "mid_block" else 0
            size = sizes[level] if part == "down_blocks" else sizes[len(sizes) - 1 - level]
            module.heads = module.inner_dim // size
            module.scale = size**-0.5
