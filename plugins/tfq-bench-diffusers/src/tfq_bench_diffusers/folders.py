"""A model's folder and its configurations: from disk, never from the network. Imports no torch."""

from __future__ import annotations

import codecs
import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from tfq_bench import api
from tfq_bench_diffusers.pipelines import LONE, check_pipeline, pipeline_scheduler
from tfq_bench_diffusers.weights import Library, Weights, find_weights

__all__ = [
    "Folder",
    "cached_snapshot",
    "find_folder",
    "local_folder",
    "read_json",
    "weights_fault",
    "weights_of",
]

UNNAMED = "diffusers"
"""Name of the model that is whatever option `source` says."""

DENOISERS = ("unet", "transformer")
DECODERS = ("vae", "vqvae", "movq")
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "class_embedder")
"""What makes conditions. `class_embedder` is ours, see `convert`: a token for each class."""
MAX_CONFIG_BYTES = 1 << 24
"""Of a configuration; the largest that is known, an index of weight files, has a tenth of it."""

_MINUS_INFINITY = re.compile(rb'("lambda_min_clipped"\s*:\s*)-Infinity')
"""What diffusers itself writes, and JSON cannot say."""


class Folder:
    """A model in diffusers' format: a pipeline's folder, or that of a lone network.

    Args:
        path: exists.

    Raises:
        AssetError: it holds no configuration.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = path / "model_index.json"
        self.parts: dict[str, Any] = read_json(index) if index.is_file() else {}
        if not self.parts and not (path / "config.json").is_file():
            raise api.AssetError(
                f"{path}: expected a model in diffusers' format (model_index.json, or config.json "
                "of a network), found neither. Save it with `save_pretrained`."
            )

    def part(self, *names: str) -> Path | None:
        """The folder of the first of these components that there is; None when there is none.

        Old repositories hold their only network and scheduler at the top.
        """
        for name in names:
            if (self.path / name).is_dir():
                return self.path / name
        top = "scheduler_config.json" if "scheduler" in names else "config.json"
        wanted = "scheduler" in names or bool(set(names) & set(DENOISERS))
        return self.path if wanted and (self.path / top).is_file() else None

    @cached_property
    def pipeline(self) -> str:
        """The class of its pipeline, `LONE` without one.

        Raises:
            AssetError: something in `model_index.json` is not understood.
        """
        return check_pipeline(self.parts, str(self.path)) if self.parts else LONE

    def network(self) -> Path:
        """The denoising network's folder."""
        found = self.part(*DENOISERS)
        if found is None:
            raise api.AssetError(
                f"{self.path}: expected a folder {' or '.join(DENOISERS)}, found "
                f"{', '.join(sorted(self.parts)) or 'no components'}."
            )
        return found

    def config(self, folder: Path) -> dict[str, Any]:
        """The configuration of the component in `folder`, its class under `_class_name`.

        Raises:
            AssetError: there is none, or `model_index.json` says another class.
        """
        file = "scheduler_config.json" if folder == self.part("scheduler") else "config.json"
        if folder == self.path:  # a lone network and its scheduler
            file = "config.json"
        return self._of_class(folder / file, folder.name)

    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration as its pipeline uses it, its class under `_class_name`.

        Raises:
            AssetError: there is none. The noise that a network was trained on is not guessed.
        """
        found = self.part("scheduler")
        path = (found or self.path / "scheduler") / "scheduler_config.json"
        if not path.is_file():
            raise api.AssetError(
                f"{self.path}: expected scheduler_config.json, which states the noise that the "
                f"network was trained on, found no {path.relative_to(self.path)}. Save the "
                "scheduler into the folder: `DDPMScheduler(...).save_pretrained(FOLDER)`."
            )
        return pipeline_scheduler(self.pipeline, self._of_class(path, "scheduler"))

    def _of_class(self, path: Path, part: str) -> dict[str, Any]:
        config = read_json(path)
        what = self.parts.get(part)
        stated = what[-1] if isinstance(what, list) and what else None
        found = config.get("_class_name", stated)
        former = "Transformer2DModel" in (stated, found)  # which diffusers has split since
        if stated is not None and found != stated and not former:
            raise api.AssetError(
                f"{path}: its class is {api.printable(repr(found), 80)}, but model_index.json says "
                f"{api.printable(repr(stated), 80)}; expected one. Correct the one that is wrong."
            )
        return {**_without_defaults(config), "_class_name": found}

    def digest(self, *, random: bool) -> str:
        """SHA-256 over all files that are opened: configurations, tokenizers, weights.

        Args:
            random: the network's weights and the text encoders are not read.

        Raises:
            AssetError: a file that will be read is not there, as after a broken download.
        """
        network, decoder = self.network(), self.part(*DECODERS)
        scheduler = (self.part("scheduler") or self.path) / "scheduler_config.json"
        files = [self.path / "model_index.json"] if self.parts else []
        files += [network / "config.json", scheduler]
        weighed = [] if decoder is None else [decoder]
        if not random:
            self.check_complete()
            weighed += [network, *(folder for name in TEXT if (folder := self.part(name)))]
        for folder in weighed:
            if folder.name.startswith("tokenizer"):
                files += _texts(folder)
                continue
            files.append(folder / "config.json")
            if not (random and weights_fault(folder)):
                weights = weights_of(folder)
                files += [*weights.files, *([weights.index] if weights.index else [])]
        total = hashlib.sha256()
        for file in dict.fromkeys(files):
            total.update(f"{file.relative_to(self.path)}\0{api.sha256_of(file)}\n".encode())
        return total.hexdigest()

    def check_complete(self) -> None:
        """AssetError unless every component that will be read is here with its weights."""
        named = [name for name, what in self.parts.items() if isinstance(what, list) and any(what)]
        known = (*DENOISERS, *DECODERS, *TEXT)
        self._refuse_adapters()
        lacking: dict[str, str] = {}
        for name in [name for name in named if name in known] or DENOISERS[:1]:
            folder = self.part(name)
            fault = "no folder" if folder is None else ""
            if folder is not None and not name.startswith("tokenizer"):
                fault = weights_fault(folder)
            if fault:
                lacking[name] = fault
        if lacking:
            found = "; ".join(f"{name}: {fault}" for name, fault in lacking.items())
            raise api.AssetError(
                f"{self.path}: expected all components with their weights, found {found}. Fetch "
                "the model again; files of a variant (such as fp16) are not read."
            )

    def _refuse_adapters(self) -> None:
        """AssetError where an adapter lies beside weights that are read.

        It would not be applied, or only with another package installed.
        """
        for name in (*DENOISERS, *DECODERS, *TEXT):
            folder = self.part(name)
            if folder is not None and (folder / "adapter_config.json").is_file():
                raise api.AssetError(
                    f"{folder}: found an adapter (adapter_config.json), which is not applied; "
                    "merge it into the weights (`merge_and_unload`, `fuse_lora`) and save them, or "
                    "remove it."
                )


def find_folder(source: str, revision: str, *, name: str) -> Folder:
    """The folder of a local path, or of a hub id in the local cache.

    Args:
        name: of the model, for the message.

    Raises:
        AssetError: it is not on this machine; says how to get it.
    """
    if not source:
        raise api.AssetError(
            f"model '{name}': option 'source' is empty; expected a local folder in diffusers' "
            "format or a hub id."
        )
    here = local_folder(source)
    if here is not None:
        return Folder(here)
    path = cached_snapshot(source, revision)
    if path is None:
        name_of = api.printable(source, 200)
        wanted = f"{name_of} at {api.printable(revision, 200)}" if revision else name_of
        what = "--suite SUITE" if name == UNNAMED else name
        raise api.AssetError(
            f"model '{name}' needs {wanted}, which is neither a folder nor in the cache of the "
            f"Hugging Face hub on this machine. Fetch it with 'tfq-bench assets fetch {what}', "
            "give a local folder with option 'source', or take weights = \"random\" for speed and "
            "memory."
        )
    return Folder(path)


def local_folder(source: str) -> Path | None:
    """The folder of that name; None where there is none, or none can be called so."""
    try:
        path = Path(source).expanduser()
        return path if path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, of no such user
        return None


def cached_snapshot(source: str, revision: str) -> Path | None:
    """Where the hub's cache has a repository, maybe in part; None when it has none of it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; AssetError when there is none.

    Raises:
        AssetError: no file, or no object of JSON, or one that is too large or too deep.
    """
    try:
        content = _MINUS_INFINITY.sub(rb"\1-1e999", path.read_bytes())
        if content.startswith(codecs.BOM_UTF8):
            raise ValueError("it begins with a byte order mark, which diffusers does not read")
        found = api.parse_json(content, max_bytes=MAX_CONFIG_BYTES)
    except OSError as error:
        raise api.AssetError(
            f"{path}: expected a JSON object, found {error.strerror or error}."
        ) from None
    except ValueError as error:
        raise api.AssetError(f"{path}: expected a JSON object, but {error}.") from None
    if not isinstance(found, dict):
        raise api.AssetError(
            f"{path}: expected a JSON object, found {api.printable(repr(found), 80)}."
        )
    return found


def _without_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as diffusers reads it: keys that it lists as left to defaults are none."""
    left = config.get("_use_default_values") or ()
    return {key: value for key, value in config.items() if key not in left}


def weights_of(folder: Path) -> Weights:
    """The weight files that are opened of the component in `folder`.

    Raises:
        AssetError: there are none, some are missing, or it is not clear which count.
    """
    library: Library = "transformers" if folder.name.startswith("text_") else "diffusers"
    try:
        return find_weights(folder, library)
    except api.AssetError as error:
        raise api.AssetError(f"{folder}: {error}.") from None


def weights_fault(folder: Path) -> str:
    """What is wrong with a component's weight files; empty when all are there."""
    try:
        weights_of(folder)
    except api.AssetError as error:
        return str(error).removeprefix(f"{folder}: ").removesuffix(".")
    return ""


def _texts(folder: Path) -> list[Path]:
    """All that a tokenizer may read: configurations and vocabularies."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [path for path in files if path.suffix in (".json", ".txt", ".model")]
