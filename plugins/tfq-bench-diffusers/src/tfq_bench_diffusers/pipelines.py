"""Which pipelines are understood: their components, and what they do to a scheduler.

Imports no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tfq_bench import api

__all__ = [
    "LONE",
    "PIPELINES",
    "Pipeline",
    "check_pipeline",
    "pipeline_scheduler",
    "pipeline_size",
]

_log = logging.getLogger("tfq_bench.diffusers")

LONE = ""
"""Class of a folder without `model_index.json`: a network, and its scheduler beside it."""

_CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")
_CLIP_TOKENS = ("CLIPTokenizer", "CLIPTokenizerFast")
_T5_TOKENS = ("T5Tokenizer", "T5TokenizerFast")
_SCHEDULER = {"scheduler": ()}
_CLIP_TEXT = {"text_encoder": _CLIP[:1], "tokenizer": _CLIP_TOKENS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What a pipeline's folder holds.

    Args:
        needed: components with the classes that each may be of; () for any, checked elsewhere.
        unused: components that take no part in making an image from its condition.
        options: what else `model_index.json` may say, with the values that are honoured; None for
            any value.
    """

    needed: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...] = ()
    options: Mapping[str, tuple[Any, ...] | None] | None = None


_PIXELS = Pipeline(needed={"unet": ("UNet2DModel",), **_SCHEDULER})
_PIXART = Pipeline(
    needed={
        "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": _T5_TOKENS,
        **_SCHEDULER,
    }
)
PIPELINES: Mapping[str, Pipeline] = {
    "DDPMPipeline": _PIXELS,
    "DDIMPipeline": _PIXELS,
    "PNDMPipeline": _PIXELS,
    "LDMPipeline": Pipeline(
        needed={
            "unet": ("UNet2DModel",),
            "vqvae": ("VQModel", "AutoencoderKL"),
            **_SCHEDULER,
        }
    ),
    "StableDiffusionPipeline": Pipeline(
        needed={
            "unet": ("UNet2DConditionModel",),
            "vae": ("AutoencoderKL",),
            **_CLIP_TEXT,
            **_SCHEDULER,
        },
        unused=("safety_checker", "feature_extractor", "image_encoder"),
        options={"requires_safety_checker": None},
    ),
    "StableDiffusionXLPipeline": Pipeline(
        needed={
            "unet": ("UNet2DConditionModel",),
            "vae": ("AutoencoderKL",),
            **_CLIP_TEXT,
            "text_encoder_2": _CLIP[1:],
            "tokenizer_2": _CLIP_TOKENS,
            **_SCHEDULER,
        },
        unused=("feature_extractor", "image_encoder"),
        options={"force_zeros_for_empty_prompt": (True, False)},
    ),
    "DiTPipeline": Pipeline(
        needed={
            "transformer": ("DiTTransformer2DModel", "Transformer2DModel"),
            "vae": ("AutoencoderKL",),
            **_SCHEDULER,
        },
        options={"id2label": None},
    ),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
}
CONVERTED = (
    Pipeline(
        needed={
            "unet": ("UNet2DModel",),
            "vqvae": ("VQModel",),
            **_SCHEDULER,
        }
    ),
    Pipeline(
        needed={
            "unet": ("UNet2DModel",),
            "vae": ("AutoencoderKL",),
            **_SCHEDULER,
        }
    ),
    Pipeline(
        needed={
            "unet": ("UNet2DConditionModel",),
            "vqvae": ("VQModel",),
            "class_embedder": ("ClassEmbedder",),
            **_SCHEDULER,
        }
    ),
)
"""What `convert` writes, under diffusers' base class, which says nothing of what it holds."""


def check_pipeline(index: Mapping[str, Any], where: str) -> str:
    """The class of a pipeline, when everything in its `model_index.json` is understood.

    Components that are not used are told once.

    Raises:
        AssetError: a class, a component or an option that is not, or components that are missing.
    """
    kind = index.get("_class_name")
    entries = {name: what for name, what in index.items() if not name.startswith("_")}
    components = {
        name: what for name, what in entries.items() if isinstance(what, list) and any(what)
    }
    if kind == "DiffusionPipeline":
        found = next((one for one in CONVERTED if one.needed.keys() == components.keys()), None)
        if found is None:
            raise api.AssetError(
                f"{where}: a DiffusionPipeline of {_names(components)} says not how it samples; "
                f"expected a pipeline of {', '.join(PIPELINES)}."
            )
        pipeline = found
    elif isinstance(kind, str) and kind in PIPELINES:
        pipeline = PIPELINES[kind]
    else:
        raise api.AssetError(
            f"{where}: the pipeline's class is {api.printable(repr(kind), 80)}, which is not "
            f"understood; expected one of {', '.join(PIPELINES)}. Give the folder of its network "
            "with a scheduler beside it, or write a model plugin of your own."
        )
    for name, what in components.items():
        if name not in pipeline.needed and name not in pipeline.unused:
            raise api.AssetError(
                f"{where}: component '{api.printable(name, 80)}' "
                f"({api.printable(what[-1], 80)}) is not understood in a {kind}; expected "
                f"{_names(pipeline.needed)}. Remove it from model_index.json where images do not "
                "depend on it."
            )
        allowed = pipeline.needed.get(name, ())
        if allowed and what[-1] not in allowed:
            raise api.AssetError(
                f"{where}: component '{name}' is of class {api.printable(repr(what[-1]), 80)}; "
                f"expected {' or '.join(allowed)}."
            )
    missing = pipeline.needed.keys() - components.keys()
    if missing:
        raise api.AssetError(
            f"{where}: a {kind} needs {_names(pipeline.needed)}; found no {_names(missing)}."
        )
    options = pipeline.options or {}
    for name in entries.keys() - components.keys():
        value = entries[name]
        if value is None or isinstance(value, list):
            continue
        honoured = options.get(name, ())
        if honoured is not None and value not in honoured:
            raise api.AssetError(
                f"{where}: {api.printable(name, 80)} = {api.printable(repr(value), 80)} is not "
                f"understood in a {kind}; remove it where images do not depend on it."
            )
    unused = [name for name in pipeline.unused if name in components]
    if unused:
        _tell(f"{where}: not used: {', '.join(unused)}.")
    return kind


def pipeline_scheduler(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler's configuration after the pipeline has seen it.

    Stable Diffusion's pipeline was trained with two keys that old configurations lack, and sets
    them whatever the file says.
    """
    if kind == "StableDiffusionPipeline":
        return {**config, "steps_offset": 1, "clip_sample": False}
    return dict(config)


def pipeline_size(kind: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """What the pipeline changes in the network's configuration.

    Stable Diffusion's takes 64 for a smaller `sample_size` that diffusers before 0.9 has written.
    """
    version = str(network.get("_diffusers_version", "")).split(".")[:2]
    old = all(part.isdigit() for part in version) and [int(part) for part in version] < [0, 9]
    size = network.get("sample_size")
    small = isinstance(size, int) and size < 64
    fits = kind == "StableDiffusionPipeline" and len(version) == 2
    return {"sample_size": 64} if fits and old and small else {}


@cache
def _tell(text: str) -> None:
    _log.warning(text)


def _names(names: Any) -> str:
    return ", ".join(api.printable(name, 80) for name in sorted(names)) or "nothing"
