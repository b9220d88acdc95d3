"""How each kind of diffusers network is called, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfq_bench import api

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NETWORKS", "forward_arguments", "network_kind"]

NETWORKS = (
    "UNet2DModel",
    "UNet2DConditionModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
)
"""Classes of diffusers that are known to be callable as below."""

SPLIT = {
    "ada_norm_zero": "DiTTransformer2DModel",
    "ada_norm_single": "PixArtTransformer2DModel",
}


def network_kind(config: Mapping[str, Any], where: str) -> str:
    """The class of the network that has this configuration.

    Folders written before diffusers split `Transformer2DModel`, as those of DiT and PixArt on the
    hub, name that class and tell the kinds apart by their norms.

    Raises:
        AssetError: it is none of `NETWORKS`.
    """
    kind = str(config.get("_class_name"))
    if kind == "Transformer2DModel":
        kind = SPLIT.get(str(config.get("norm_type")), kind)
    if kind not in NETWORKS:
        raise api.AssetError(
            f"{where}: expected a denoising network of {', '.join(NETWORKS)}, found {kind!r}. "
            "Write a model plugin of your own for it; the README of tfq-bench-diffusers says how."
        )
    return kind


def forward_arguments(
    kind: str, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Keyword arguments of the network's `forward`, the state first.

    Args:
        x: `[B, C, H, W]` in the network's dtype; conditions are cast to it, class labels are not.
        condition: of `text`, `mask`, `pooled`, `sizes`, `labels`, `resolution`, `aspect` those that
            the network takes.
    """
    given = {
        name: value.to(x.dtype) if value.is_floating_point() else value
        for name, value in condition.items()
    }
    if kind in ("UNet2DModel", "UNet2DConditionModel"):
        arguments: dict[str, Any] = {"sample": x, "timestep": timestep}
        if "text" in given:
            arguments["encoder_hidden_states"] = given["text"]
        if "labels" in given:
            arguments["class_labels"] = given["labels"]
        if "pooled" in given:
            arguments["added_cond_kwargs"] = {
                "text_embeds": given["pooled"],
                "time_ids": given["sizes"],
            }
        return arguments
    arguments = {"hidden_states": x, "timestep": timestep}
    if kind == "DiTTransformer2DModel":
        return {**arguments, "class_labels": given["labels"]}
    return {
        **arguments,
        "encoder_hidden_states": given["text"],
        "encoder_attention_mask": given["mask"],
        "added_cond_kwargs": {
            "resolution": given.get("resolution"),
            "aspect_ratio": given.get("aspect"),
        },
    }
