"""The files of a CLIP model in transformers' format: found on disk, never downloaded. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfq_bench.api import Asset, AssetError, OptionValue, digest, sha256_of

__all__ = ["ClipFiles", "clip_assets", "find_clip"]

_TEXTS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_NEEDED = {
    "config.json": ("config.json",),
    "an image processor": ("preprocessor_config.json", "processor_config.json"),
    "a tokenizer": ("tokenizer.json", "vocab.json"),
}
_STEMS = {"safetensors": "model", "bin": "pytorch_model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFiles:
    """A folder with all that a CLIP model is read from.

    Args:
        digest: SHA-256 over names and bytes of the files that are read.
        offer: where a model comes from and how to pass it, for messages.
    """

    folder: Path
    digest: str
    offer: str


def clip_assets(options: Mapping[str, OptionValue]) -> tuple[Asset, ...]:
    """The repository of the CLIP model on the hub, when no folder is given."""
    if options["weights"]:
        return ()
    hub = str(options["hub"])
    path = _cached(hub)
    return (
        Asset(
            name=hub,
            what="the CLIP model of the CLIP score",
            kind="hub",
            source=hub,
            path=None if path is None or _faults(path) else path,
            patterns=tuple(
                (*_TEXTS, f"{stem}.{suffix}", f"{stem}-?????-of-?????.{suffix}", f"{stem}.*.json")
                for suffix, stem in _STEMS.items()
            ),
            advice="A folder that you have goes into option 'weights'.",
        ),
    )


def find_clip(weights: str, hub: str) -> ClipFiles:
    """The files of the folder `weights`; without one, those of the hub id in the local cache.

    Raises:
        AssetError: not on this machine or incomplete; says how to get it.
    """
    name = "NAME" if weights else hub
    offer = (
        "CLIP score needs a CLIP model in transformers' format with tokenizer and image processor. "
        f"Fetch it with 'tfq-bench assets fetch {name}', or set 'weights' to its folder. Without "
        "it, leave the metric 'clip-score' out."
    )
    folder = Path(weights) if weights else _cached(hub)
    if folder is None:
        raise AssetError(
            f"the CLIP model: {hub!r} is not in the cache of the Hugging Face hub on this machine. "
            f"{offer}"
        )
    if not folder.is_dir():
        raise AssetError(f"the CLIP model: there is no folder {folder}. {offer}")
    lacking = _faults(folder)
    if lacking:
        raise AssetError(f"the CLIP model: {folder} lacks {', '.join(lacking)}. {offer}")
    texts = [name for name in _TEXTS if (folder / name).is_file()]
    read = sorted({*_weights(folder), *texts})
    found = digest({name: sha256_of(folder / name) for name in read}, 64)
    return ClipFiles(folder=folder, digest=found, offer=offer)


def _faults(folder: Path) -> list[str]:
    """What a folder lacks."""
    here = {path.name for path in folder.iterdir() if path.is_file()}
    lacking = [what for what, names in _NEEDED.items() if not set(names) & here]
    return lacking if _weights(folder) else [*lacking, "weights (*.safetensors or *.bin)"]


def _weights(folder: Path) -> list[str]:
    """Safetensors before pickles. Files of a variant have another dot in their names: not read."""
    plain = sorted(
        path.name for path in folder.iterdir() if path.is_file() and path.name.count(".") == 1
    )
    tensors = [name for name in plain if name.endswith(".safetensors")]
    return tensors or [name for name in plain if name.endswith(".bin")]


def _cached(hub: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:  # comes with transformers, which is looked for when the metric is made
        return None
    try:
        return Path(snapshot_download(hub, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
