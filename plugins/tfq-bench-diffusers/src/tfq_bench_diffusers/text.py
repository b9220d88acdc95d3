"""Prompts through a model's own text encoders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.folders import TEXT, Folder, read_json, weights_of
from tfq_bench_diffusers.progress_bars import no_bars
from tfq_bench_diffusers.tensors import check_floats, listed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Prompts", "check_text"]

Row = Mapping[str, "Tensor"]

KINDS: Mapping[str, tuple[str, ...]] = {
    "CLIPTextModel": ("clip_text_model", "clip"),
    "CLIPTextModelWithProjection": ("clip_text_model", "clip"),
    "T5EncoderModel": ("t5",),
}
"""Classes of text encoders, with the `model_type` of their configurations."""

OTHERS: Mapping[str, str] = {
    "quantization_config": "its weights are quantized already; take them before quantization",
    "transformers_weights": "it names weight files of its own; rename them to the usual names",
    "auto_map": "it wants code of its own to be run; use a class of transformers",
}
"""Keys of a text encoder's configuration that would load something else than its weight files."""


def check_text(folder: Folder) -> None:
    """Nothing, when the folder's text encoders are understood; loads nothing.

    Raises:
        AssetError: they are missing, or a class or key of them is not understood.
    """
    encoders = _named(folder, "text_encoder")
    if not encoders:
        raise api.AssetError(
            f"{folder.path}: its network is told a prompt, but there is no text encoder; expected "
            "the folder of a whole pipeline, with model_index.json."
        )
    for name, kind in encoders.items():
        path = _part(folder, name) / "config.json"
        config = read_json(path)
        found = config.get("model_type")
        if kind not in KINDS or found not in KINDS[kind]:
            raise api.AssetError(
                f"{path}: expected the model_type of a {kind} ({', '.join(KINDS.get(kind, ()))}), "
                f"found {api.printable(repr(found), 80)}."
            )
        for key, what in OTHERS.items():
            if config.get(key) is not None:
                raise api.AssetError(f"{path}: it has the key {key}: {what}.")
        check_floats(weights_of(path.parent), path.parent)


_LAYER = re.compile(r"^(text_model\.)?encoder\.(layers|block)\.\d+\.")


class Prompts:
    """Conditions by image index: prompts, each encoded once, in float32.

    Args:
        prompts: for image 0, 1, ...; they repeat.
        sizes: what the network is told besides, the same for every image.
        loaded: called when the text encoders have been loaded.
    """

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        folder: Folder,
        prompts: Sequence[str],
        sizes: Mapping[str, Tensor],
        loaded: Callable[[], None],
    ) -> None:
        self._kind, self._folder, self._prompts = kind, folder, prompts
        self._pools = config.get("addition_embed_type") == "text_time"
        self._sizes, self._loaded = sizes, loaded
        self._pipeline: Any = None
        self._known: dict[str, tuple[Row, Row]] = {}

    def row(self, image: int) -> Row:
        """The condition of one image, on the CPU."""
        return self._encoded(self._prompts[image % len(self._prompts)])[0]

    def nothing(self) -> Row:
        """The empty prompt."""
        return self._encoded(self._prompts[0])[1]

    @torch.no_grad()
    def _encoded(self, prompt: str) -> tuple[Row, Row]:
        if prompt not in self._known:
            encoders = self._encoders()
            try:
                found = encoders.encode_prompt(
                    [prompt],
                    device=torch.device("cpu"),
                    num_images_per_prompt=1,
                    do_classifier_free_guidance=True,
                )
            except (IndexError, ValueError, RuntimeError, OverflowError) as error:
                raise api.AssetError(
                    f"{self._folder.path}: its text encoders cannot encode the prompt "
                    f"'{api.printable(prompt, 80)}' ({api.printable(error, 200)}); are its "
                    "tokenizers another model's?"
                ) from error
            if self._kind == "PixArtTransformer2DModel":
                text, mask, no_text, no_mask = found
                rows = {"text": text, "mask": mask}, {"text": no_text, "mask": no_mask}
            elif self._pools:
                text, no_text, pooled, no_pooled = found
                rows = {"text": text, "pooled": pooled}, {"text": no_text, "pooled": no_pooled}
            else:
                rows = {"text": found[0]}, {"text": found[1]}
            for one in rows:
                self._refuse_broken(prompt, one)
            given, nothing = (
                {**{name: value[0].float() for name, value in one.items()}, **self._sizes}
                for one in rows
            )
            self._known[prompt] = given, nothing
        return self._known[prompt]

    def _refuse_broken(self, prompt: str, row: Row) -> None:
        for name, value in row.items():
            if not bool(torch.isfinite(value.float()).all()):
                raise api.CellError(
                    f"{self._folder.path}: the text encoders gave values that are not finite "
                    f"('{name}') for the prompt '{api.printable(prompt, 80)}' or the empty one."
                )

    def _encoders(self) -> Any:
        """The pipeline with nothing but text encoders, tokenizers and the scheduler."""
        if self._pipeline is None:
            try:
                import transformers
            except ImportError:
                raise api.AssetError(
                    "prompts need the package transformers, which is not installed; run "
                    "`pip install tfq-bench-diffusers[text]`."
                ) from None
            from diffusers import DiffusionPipeline

            check_text(self._folder)
            given = {
                name: None
                for name, what in self._folder.parts.items()
                if isinstance(what, list) and name not in (*TEXT, "scheduler")
            }
            encoders = {
                name: _load_encoder(self._folder, name, getattr(transformers, kind))
                for name, kind in _named(self._folder, "text_encoder").items()
            }
            try:
                with no_bars():
                    pipeline = DiffusionPipeline.from_pretrained(
                        self._folder.path,
                        local_files_only=True,
                        dtype=torch.float32,
                        **given,
                        **encoders,
                    )
            except Exception as error:
                # Tokenizers raise whatever their files make them.
                raise api.AssetError(
                    f"{self._folder.path}: expected text encoders and tokenizers, found another "
                    f"thing: {type(error).__name__}: {api.printable(error, 500)}"
                ) from error
            for name, encoder in encoders.items():
                tokenizer = name.replace("text_encoder", "tokenizer")
                _check_tokenizer(self._folder, getattr(pipeline, tokenizer), tokenizer, encoder)
            self._loaded()
            self._pipeline = pipeline
        return self._pipeline


def _named(folder: Folder, start: str) -> dict[str, str]:
    """The class of each component of the pipeline whose name begins so."""
    return {
        name: str(what[-1])
        for name, what in folder.parts.items()
        if name.startswith(start) and isinstance(what, list) and any(what)
    }


def _part(folder: Folder, name: str) -> Any:
    found = folder.part(name)
    if found is None:
        raise api.AssetError(f"{folder.path}: expected a folder {name}, found none.")
    return found


def _load_encoder(folder: Folder, name: str, kind: Any) -> Any:
    """The text encoder in float32.

    transformers fills in random values for tensors that are missing, and only warns.
    """
    path = _part(folder, name)
    try:
        with no_bars():
            encoder, told = kind.from_pretrained(
                path,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=weights_of(path).safe,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
    except api.TfqError:
        raise
    except Exception as error:
        raise api.AssetError(
            f"{path}: expected the weights of a {kind.__name__}, found another thing: "
            f"{type(error).__name__}: {api.printable(error, 500)}"
        ) from error
    surplus = set(told["unexpected_keys"])
    # Whole layers that the configuration does not know; single tensors are left by other tasks.
    layers = {name for name in surplus if _LAYER.search(name)}
    odd = {str(one[0] if isinstance(one, tuple) else one) for one in told["mismatched_keys"]}
    faults = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (("missing", set(told["missing_keys"])), ("of another shape", odd))
        if names
    ]
    if faults or layers:
        faults += [f"{len(surplus)} unexpected: {listed(layers or surplus)}"] if surplus else []
        raise api.AssetError(
            f"{path}: expected the tensors of a {kind.__name__}, found {'; '.join(faults)}. Fetch "
            "the folder again."
        )
    return encoder.eval().requires_grad_(False)


def _check_tokenizer(folder: Folder, tokenizer: Any, name: str, encoder: Any) -> None:
    """AssetError where the tokenizer makes more tokens than the encoder has places."""
    places = getattr(encoder.config, "max_position_embeddings", None)
    if places is not None and tokenizer.model_max_length > places:
        raise api.AssetError(
            f"{folder.path / name}: model_max_length is {tokenizer.model_max_length:g}, but the "
            f"text encoder has places for {places} tokens; expected at most as many. Set it in "
            "tokenizer_config.json."
        )
