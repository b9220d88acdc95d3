"""From CompVis' names to those of diffusers.

diffusers converts what it loads itself: U-Nets with cross-attention, and autoencoders. What it does
not know is given its form first: attention over pixels with one convolution for query, key and
value, blocks that resample inside a residual block, and codebooks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfq_bench import api
from tfq_bench_diffusers.convert.checkpoint import DECODER, NETWORK, listed
from tfq_bench_diffusers.heads import head_sizes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decoder_state", "network_state"]

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
CODEBOOK = "quantize.embedding.weight"


def network_state(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], where: object
) -> dict[str, Tensor]:
    """A U-Net's tensors under diffusers' names.

    Args:
        tensors: names behind `model.diffusion_model.`.
        config: of the diffusers network.
        where: the checkpoint, for messages.

    Raises:
        AssetError: a tensor that has no place in such a network.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    layers = int(config["layers_per_block"])
    ready: dict[str, Tensor] = {}
    upsamplers: dict[str, Tensor] = {}
    for name, value in tensors.items():
        place = _upsampler(name, layers)
        if place is not None:
            upsamplers[place] = value
        else:
            ready.update(_pixel_attention(name, value, config, where))
    found: dict[str, Tensor] = convert_ldm_unet_checkpoint(
        {NETWORK + name: value for name, value in ready.items()}, config
    )
    _check_all_used(ready, found, NETWORK, where)
    # The converter counts a residual block that ends a level as one layer more.
    downsampler = re.compile(rf"(down_blocks\.\d+)\.resnets\.{layers}\.")
    renamed = {downsampler.sub(r"\1.downsamplers.0.", name): one for name, one in found.items()}
    return {**renamed, **upsamplers}


def decoder_state(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], where: object
) -> dict[str, Tensor]:
    """An autoencoder's tensors under diffusers' names.

    Args:
        tensors: names behind `first_stage_model.`.

    Raises:
        AssetError: a tensor that has no place in such an autoencoder.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    ready = dict(tensors)
    codebook = ready.pop(CODEBOOK, None)
    found: dict[str, Tensor] = convert_ldm_vae_checkpoint(
        {DECODER + name: value for name, value in ready.items()}, config
    )
    _check_all_used(ready, found, DECODER, where)
    return found if codebook is None else {**found, CODEBOOK: codebook}


def _upsampler(name: str, layers: int) -> str | None:
    """The place of a tensor of a residual block that upsamples; None for other tensors.

    It is the last module of the entry at which a level ends.
    """
    match = re.fullmatch(r"output_blocks\.(\d+)\.[12]\.(\w+\.\d)\.(weight|bias)", name)
    if match is None or match[2] not in RESIDUAL:
        return None
    level = int(match[1]) // (layers + 1)
    return f"up_blocks.{level}.upsamplers.0.{RESIDUAL[match[2]]}.{match[3]}"


def _pixel_attention(
    name: str, value: Tensor, config: Mapping[str, Any], where: object
) -> dict[str, Tensor]:
    """A tensor of an attention over pixels in the form of diffusers; others as they are.

    A convolution of width 1 over `[B, C, H*W]` is a linear layer. Its `3*C` outputs are ordered by
    head, then query, key, value, then channel.
    """
    match = re.fullmatch(r"(.+)\.(norm|qkv|proj_out)\.(weight|bias)", name)
    if config["_class_name"] != "UNet2DModel" or match is None:
        return {name: value}
    prefix, module, leaf = match.groups()
    if module == "norm":
        return {f"{prefix}.group_norm.{leaf}": value}
    flat = value[..., 0] if value.dim() == 3 else value
    if module == "proj_out":
        return {f"{prefix}.to_out.0.{leaf}": flat}
    level = _level(prefix, config)
    size, channels = head_sizes(config)[level], config["block_out_channels"][level]
    if flat.shape[0] != 3 * channels:
        raise api.AssetError(
            f"{where}: expected other shapes of this family: {3 * channels} outputs of "
            f"'{NETWORK}{name}', found {tuple(value.shape)}."
        )
    split = flat.reshape(-1, 3, size, *flat.shape[1:])
    return {
        f"{prefix}.to_{part}.{leaf}": split[:, index].reshape(-1, *flat.shape[1:]).contiguous()
        for index, part in enumerate("qkv")
    }


def _level(prefix: str, config: Mapping[str, Any]) -> int:
    """The level that an attention belongs to, 0 for the highest resolution."""
    side, *rest = prefix.split(".")
    last = len(config["block_out_channels"]) - 1
    if side == "middle_block":
        return last
    within = int(config["layers_per_block"]) + 1
    if side == "input_blocks":
        return min((int(rest[0]) - 1) // within, last)
    return max(last - int(rest[0]) // within, 0)


def _check_all_used(
    given: Mapping[str, Tensor], found: Mapping[str, Tensor], prefix: str, where: object
) -> None:
    """AssetError unless every given tensor is among those found, once.

    diffusers' converters leave out what they do not know; they rename and reshape, so that what
    they took still lies where it was in memory.
    """
    lost = {value.data_ptr(): name for name, value in given.items()}
    for value in found.values():
        lost.pop(value.data_ptr(), None)
    if lost:
        raise api.AssetError(
            f"{where}: expected a model of this family, found tensors that have no place in it: "
            f"{listed(prefix + name for name in lost.values())}."
        )
