"""A CLIP model in transformers' format: from disk, never from the network, never a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench.errors import AssetError, MetricError
from tfq_bench.keys import digest
from tfq_bench.metrics.assets import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HUB_ID", "ClipFiles", "ClipModel", "find_clip"]

HUB_ID = "openai/clip-vit-large-patch14"
"""What torchmetrics takes by default, and most tables about text-to-image models."""
BATCH = 64

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


def find_clip(weights: str, hub: str) -> ClipFiles:
    """The files of the folder `weights`; without one, those of the hub id in the local cache.

    Raises:
        AssetError: not on this machine or incomplete, or transformers is not installed; says how
            to get it.
    """
    _transformers()
    offer = (
        "CLIP score needs a CLIP model in transformers' format with tokenizer and image processor. "
        f"Fetch it yourself with `hf download {hub} --exclude '*.h5' '*.msgpack'`, or set "
        "'weights' to its folder. Without it, leave the metric 'clip-score' out."
    )
    folder = Path(weights) if weights else _cached(hub, offer)
    if not folder.is_dir():
        raise AssetError(f"the CLIP model: there is no folder {folder}. {offer}")
    here = {path.name: path for path in folder.iterdir() if path.is_file()}
    # Files of a variant have another dot in their names, and are not read.
    tensors = sorted(name for name in here if name.count(".") == 1)
    weight_files = [name for name in tensors if name.endswith(".safetensors")] or [
        name for name in tensors if name.endswith(".bin")
    ]
    lacking = [what for what, names in _NEEDED.items() if not set(names) & set(here)]
    if not weight_files:
        lacking.append("weights (*.safetensors or *.bin)")
    if lacking:
        raise AssetError(f"the CLIP model: {folder} lacks {', '.join(lacking)}. {offer}")
    read = sorted({*weight_files, *(name for name in _TEXTS if name in here)})
    found = digest({name: sha256_of(here[name]) for name in read}, 64)
    return ClipFiles(folder=folder, digest=found, offer=offer)


def _cached(hub: str, offer: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        raise AssetError(
            f"the CLIP model: {hub!r} is not in the cache of the Hugging Face hub on this machine. "
            f"{offer}"
        ) from None


class ClipModel:
    """Both encoders on `device`, in float32.

    Raises:
        AssetError: the files are not those of a whole CLIP model.
    """

    def __init__(self, files: ClipFiles, *, device: str) -> None:
        transformers = _transformers()
        try:
            with _quiet(transformers):
                network, loading = transformers.CLIPModel.from_pretrained(
                    files.folder,
                    local_files_only=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
                self._tokenizer = transformers.CLIPTokenizer.from_pretrained(
                    files.folder, local_files_only=True
                )
                # By PIL whatever else is installed: torchvision resizes to other pixels.
                self._processor = transformers.CLIPImageProcessorPil.from_pretrained(
                    files.folder, local_files_only=True
                )
        except Exception as error:  # what damaged files raise is nowhere listed
            raise AssetError(
                f"the CLIP model: {files.folder} cannot be read ({type(error).__name__}: {error}). "
                f"{files.offer}"
            ) from error
        # Weights that are absent would be drawn at random, with a warning only.
        if missing := sorted(loading["missing_keys"]):
            raise AssetError(
                f"the CLIP model: {files.folder} lacks {len(missing)} weights of a CLIP model, "
                f"{missing[0]} first. {files.offer}"
            )
        self._network: Any = network.eval().requires_grad_(False).to(device)
        self._device = device

    @property
    def tokens(self) -> int:
        """How many tokens of a prompt are read, start and end among them."""
        return int(self._network.config.text_config.max_position_embeddings)

    def truncated(self, prompts: Sequence[str]) -> int:
        """How many of these prompts are longer than `tokens`."""
        ids = self._tokenizer(list(prompts), verbose=False)["input_ids"]
        return sum(len(row) > self.tokens for row in ids)

    def text_features(self, prompts: Sequence[str]) -> np.ndarray:
        """float32 `[N, D]`, projected; all are padded to full length, so none changes others'."""

        def call(batch: Sequence[str]) -> Tensor:
            read = self._tokenizer(
                list(batch),
                padding="max_length",
                truncation=True,
                max_length=self.tokens,
                return_tensors="pt",
            ).to(self._device)
            found: Tensor = self._network.get_text_features(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            ).pooler_output
            return found

        return _in_batches(prompts, call)

    def image_features(self, images: np.ndarray) -> np.ndarray:
        """float32 `[N, D]`, projected, from uint8 `[N, H, W, 3]`."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise MetricError(
                f"images must be uint8 [N, H, W, 3], found {images.dtype} {list(images.shape)}."
            )

        def call(batch: np.ndarray) -> Tensor:
            pixels = self._processor(
                images=list(batch), return_tensors="pt", input_data_format="channels_last"
            )["pixel_values"]
            found: Tensor = self._network.get_image_features(
                pixel_values=pixels.to(self._device, torch.float32)
            ).pooler_output
            return found

        return _in_batches(images, call)


@torch.no_grad()
def _in_batches(rows: Any, call: Callable[[Any], Tensor]) -> np.ndarray:
    found = [call(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    features: np.ndarray = torch.cat(found).float().cpu().numpy()
    return features


def _transformers() -> Any:
    try:
        import transformers
        from transformers import CLIPImageProcessorPil  # noqa: F401  (a class of 5.4 and later)
    except ImportError:
        raise AssetError(
            "CLIP score needs the package transformers, 5.4 or later, which is not installed; run "
            "`pip install 'tfq-bench[clip]'`."
        ) from None
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and no warnings of transformers inside: what they warn of is checked here."""
    chatter = transformers.utils.logging
    bars, verbosity = chatter.is_progress_bar_enabled(), chatter.get_verbosity()
    chatter.set_verbosity_error()
    if bars:
        chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(verbosity)
        if bars:
            chatter.enable_progress_bar()
