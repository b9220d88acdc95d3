"""A CLIP model in transformers' format: from disk, never from the network, never a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench.api import AssetError, MetricError
from tfq_bench_metrics.clip_files import ClipFiles

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClipModel", "check_transformers"]

BATCH = 64


class ClipModel:
    """Both encoders on `device`, in float32.

    Raises:
        AssetError: the files are not those of a whole CLIP model.
    """

    def __init__(self, files: ClipFiles, *, device: str) -> None:
        transformers = check_transformers()
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


def check_transformers() -> Any:
    """The package; AssetError when it is not installed, or too old."""
    try:
        import transformers
        from transformers import CLIPImageProcessorPil  # noqa: F401  (a class of 5.4 and later)
    except ImportError:
        raise AssetError(
            "CLIP score needs the package transformers, 5.4 or later, which is not installed; run "
            "`pip install 'tfq-bench-metrics[clip]'`."
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
