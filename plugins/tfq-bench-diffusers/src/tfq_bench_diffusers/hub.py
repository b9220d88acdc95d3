"""What must be fetched of a repository on the hub before a model can be used. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tfq_bench import api
from tfq_bench_diffusers.families import PRESETS, Preset
from tfq_bench_diffusers.folders import (
    DECODERS,
    DENOISERS,
    TEXT,
    Folder,
    cached_snapshot,
    local_folder,
)

__all__ = ["named_assets", "source_assets"]

STEMS = {
    "safetensors": ("diffusion_pytorch_model", "model"),
    "bin": ("diffusion_pytorch_model", "pytorch_model"),
}
"""What diffusers and transformers call weights without a variant; `fp16` and such are not read."""
SHARD = "-?????-of-?????"
CONFIGURATION = ":configuration"
"""Ends the name of an asset that is a repository without its weights."""


def named_assets(options: Mapping[str, api.OptionValue]) -> tuple[api.Asset, ...]:
    """The repository of a model that has a name; none for a local folder or random weights."""
    # The packaged configuration is enough for random weights.
    return () if options["weights"] == "random" else source_assets(options)


def source_assets(options: Mapping[str, api.OptionValue]) -> tuple[api.Asset, ...]:
    """The repository that option `source` names, its weights included unless they are random.

    None for a local folder, and for what cannot be a hub id: the model says what is wrong with it.
    """
    source, revision = str(options["source"]), str(options["revision"])
    if not _is_hub_id(source) or local_folder(source) is not None:
        return ()
    drawn = options["weights"] == "random"
    name, preset = _known(source, revision)
    texts = tuple(_configurations())
    patterns = (texts,) if drawn else tuple((*texts, *_weights(suffix)) for suffix in STEMS)
    return (
        api.Asset(
            name=name + CONFIGURATION if drawn else name,
            what=preset.summary if preset else "a diffusion model",
            kind="hub",
            source=source,
            revision=revision,
            path=_found(source, revision, drawn=drawn),
            size=preset.size if preset and not drawn else None,
            sha256=preset.sha256 if preset and not drawn else "",
            licence=preset.licence if preset else "",
            patterns=patterns,
            advice="A folder that you have goes into option 'source'.",
        ),
    )


def _known(source: str, revision: str) -> tuple[str, Preset | None]:
    """Name of the asset, and what is known about it."""
    for name, preset in PRESETS.items():
        if (preset.source, preset.revision) == (source, revision):
            return name, preset
    return (f"{source}@{revision}" if revision else source), None


def _is_hub_id(source: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def _found(source: str, revision: str, *, drawn: bool) -> Path | None:
    path = cached_snapshot(source, revision)
    try:
        if path is not None:
            folder = Folder(path)
            if drawn:
                folder.network()
            else:
                folder.check_complete()
    except api.AssetError:
        return None
    return path


def _configurations() -> Iterator[str]:
    yield from ("model_index.json", "config.json", "scheduler_config.json")
    yield "scheduler/scheduler_config.json"
    for part in (*DENOISERS, *DECODERS, *TEXT):
        if part.startswith("tokenizer"):
            yield from (f"{part}/*.json", f"{part}/*.txt", f"{part}/*.model")
        else:
            yield f"{part}/config.json"


def _weights(suffix: str) -> Iterator[str]:
    """Old repositories hold their only network at the top."""
    for folder in ("", *(f"{part}/" for part in (*DENOISERS, *DECODERS, *TEXT))):
        if folder.startswith("tokenizer"):
            continue
        for stem in STEMS[suffix] if folder else STEMS[suffix][:1]:
            yield f"{folder}{stem}.{suffix}"
            yield f"{folder}{stem}{SHARD}.{suffix}"
            yield f"{folder}{stem}.{suffix}.index.json"
