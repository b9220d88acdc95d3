"""What is understood of the configurations of networks and autoencoders. Imports no torch.

diffusers builds them, so every key of their classes is honoured by it; what has to be known here is
which of them change how a network is called or what its output means. Such keys must have the
values below; keys that the class does not have are refused by name, since nobody reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfq_bench import api
from tfq_bench_diffusers.known_keys import DECODERS, NETWORKS

__all__ = [
    "LATENT_CHANNELS",
    "channel_count",
    "check_decoder",
    "check_network",
    "network_kind",
]

SPLIT = {
    "ada_norm_zero": "DiTTransformer2DModel",
    "ada_norm_single": "PixArtTransformer2DModel",
}
LEGACY: Mapping[str, tuple[Any, ...]] = {
    "num_vector_embeds": (None,),
    "use_linear_projection": (False,),
    "only_cross_attention": (False,),
    "double_self_attention": (False,),
    "attention_type": ("default",),
    "cross_attention_dim": (None,),
    "caption_channels": (None,),
    "interpolation_scale": (None,),
    "use_additional_conditions": (None, False),
}
"""Keys of `Transformer2DModel` that the class it became does not have, with what they must say."""

CALLED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "UNet2DModel": {
        "class_embed_type": (None,),
        "time_embedding_type": ("positional",),
    },
    "UNet2DConditionModel": {
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
        "addition_embed_type": (None, "text_time"),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "time_cond_proj_dim": (None,),
        "time_embedding_type": ("positional",),
        "attention_type": ("default",),
    },
    "DiTTransformer2DModel": {"norm_type": ("ada_norm_zero",)},
    "PixArtTransformer2DModel": {
        "norm_type": ("ada_norm_single",),
        "attention_type": ("default",),
    },
}
"""Keys that would need other arguments than the network is given."""

LATENT_CHANNELS = {"AutoencoderKL": 4, "VQModel": 3}
"""Defaults in diffusers."""


def network_kind(config: Mapping[str, Any], where: str) -> str:
    """The class of the network that has this configuration.

    Folders written before diffusers split `Transformer2DModel`, as those of DiT and PixArt on the
    hub, name that class and tell the kinds apart by their norms.

    Raises:
        AssetError: it is none of `NETWORKS`.
    """
    kind = api.printable(config.get("_class_name"), 80)
    if kind == "Transformer2DModel":
        kind = SPLIT.get(str(config.get("norm_type")), kind)
    if kind not in NETWORKS:
        raise api.AssetError(
            f"{where}: expected a denoising network of {', '.join(NETWORKS)}, found {kind!r}. "
            "Write a model plugin of your own for it; the README of tfq-bench-diffusers says how."
        )
    return kind


def check_network(config: Mapping[str, Any], kind: str, where: str) -> None:
    """Nothing, when everything that the configuration asks for is understood.

    Raises:
        AssetError: a key or value that is not; names it.
    """
    former = config.get("_class_name") == "Transformer2DModel"
    for key, value in _stated(config, where):
        if former and key in LEGACY and key not in NETWORKS[kind]:
            _require(where, key, value, LEGACY[key])
        elif key not in NETWORKS[kind]:
            raise _unknown(where, kind, key, value)
        elif key in CALLED[kind]:
            _require(where, key, value, CALLED[kind][key])
    entering = _count(where, "in_channels", channel_count(kind, config))
    default = {"UNet2DModel": 3, "UNet2DConditionModel": 4, "PixArtTransformer2DModel": 8}
    leaving = config.get("out_channels", default.get(kind))
    leaving = entering if leaving is None else _count(where, "out_channels", leaving)
    if leaving not in (entering, 2 * entering):
        raise api.AssetError(
            f"{where}: in_channels is {entering} and out_channels {leaving}; expected as many, or "
            "twice as many (a learned variance). Networks that are told an image beside the state, "
            "as for inpainting, are not understood."
        )


def channel_count(kind: str, config: Mapping[str, Any]) -> Any:
    """Channels of the state, `in_channels` or the class's default."""
    return config.get("in_channels", 3 if kind == "UNet2DModel" else 4)


def check_decoder(config: Mapping[str, Any], where: str, *, channels: int, pipeline: str) -> str:
    """The class of an autoencoder, when everything that its configuration asks for is understood.

    Args:
        channels: of the state. pipeline: the model's class; see `pipelines`.

    Raises:
        AssetError: a class, key or value that is not; names it.
    """
    kind = str(config.get("_class_name"))
    if kind not in DECODERS:
        raise api.AssetError(
            f"{where}: expected an autoencoder of {', '.join(DECODERS)}, found "
            f"{api.printable(repr(kind), 80)}. Write a model plugin of your own for it."
        )
    for key, value in _stated(config, where):
        if key not in DECODERS[kind]:
            raise _unknown(where, kind, key, value)
    _require(where, "shift_factor", config.get("shift_factor"), (None, 0, 0.0))
    scaling = config.get("scaling_factor", 1.0)
    if not _finite(scaling) or scaling <= 0:
        raise _unfit(where, "scaling_factor", scaling, "a number above 0")
    latent = config.get("latent_channels", LATENT_CHANNELS[kind])
    if latent != channels:
        raise _unfit(where, "latent_channels", latent, f"{channels}, the network's in_channels")
    if config.get("out_channels", 3) not in (1, 3):
        raise _unfit(where, "out_channels", config["out_channels"], "1 or 3 colours")
    statistics = [config.get("latents_mean"), config.get("latents_std")]
    for key, value in zip(("latents_mean", "latents_std"), statistics, strict=True):
        if value is None:
            continue
        if pipeline != "StableDiffusionXLPipeline" or None in statistics:
            raise _unfit(where, key, value, "none: diffusers' pipeline of this model ignores it")
        many = isinstance(value, list) and len(value) == latent
        if not many or not all(map(_finite, value)) or (key == "latents_std" and min(value) <= 0):
            raise _unfit(where, key, value, f"{latent} numbers, deviations above 0")
    return kind


def _stated(config: Mapping[str, Any], where: str) -> list[tuple[str, Any]]:
    if config.get("quantization_config") is not None:
        told = config["quantization_config"]
        method = told.get("quant_method") if isinstance(told, Mapping) else told
        raise api.AssetError(
            f"{where}: its weights are quantized already (quantization_config, "
            f"{api.printable(repr(method), 80)}); expected a model before quantization."
        )
    left_out = {"quantization_config"}
    return [(k, v) for k, v in config.items() if not k.startswith("_") and k not in left_out]


def _require(where: str, key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    # By type too: 0 is not false.
    if not any(value == one and type(value) is type(one) for one in allowed):
        told = " or ".join("null" if one is None else repr(one) for one in allowed)
        raise _unfit(where, key, value, f"{told}; anything else is not implemented")


def _unfit(where: str, key: str, value: Any, expected: str) -> api.AssetError:
    return api.AssetError(
        f"{where}: {key} is {api.printable(repr(value), 80)}; expected {expected}."
    )


def _unknown(where: str, kind: str, key: str, value: Any) -> api.AssetError:
    return api.AssetError(
        f"{where}: {api.printable(key, 80)} = {api.printable(repr(value), 80)} is no key of "
        f"{kind} that is understood. Nothing would honour it: remove it, or write a model plugin "
        "of your own."
    )


def _count(where: str, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _unfit(where, key, value, "a whole number above 0")
    return value


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
