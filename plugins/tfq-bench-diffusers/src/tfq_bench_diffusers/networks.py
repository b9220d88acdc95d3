"""How each kind of diffusers network is called, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["forward_arguments"]


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
