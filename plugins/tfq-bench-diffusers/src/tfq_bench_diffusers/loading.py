"""A model's folder, its configurations and its network: from disk, never from the network."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.heads import set_heads, without_heads
from tfq_bench_diffusers.quiet import no_bars

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Folder", "find_folder", "load_network", "random_network", "read_json", "weights_fault"]

DENOISERS = ("unet", "transformer")
DECODERS = ("vae", "vqvae", "movq")
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "class_embedder")
"""What makes conditions. `class_embedder` is ours, see `convert`: a token for each class."""


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

    def network(self) -> Path:
        """The denoising network's folder."""
        found = self.part(*DENOISERS)
        if found is None:
            raise api.AssetError(
                f"{self.path}: expected a folder {' or '.join(DENOISERS)}, found "
                f"{', '.join(sorted(self.parts)) or 'no components'}."
            )
        return found

    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration; empty when there is none (diffusers' defaults hold)."""
        found = self.part("scheduler")
        return {} if found is None else read_json(found / "scheduler_config.json")

    def digest(self, *, random: bool) -> str:
        """SHA-256 over all files that are read: configurations, tokenizers, weights.

        Args:
            random: the network's weights and the text encoders are not read.

        Raises:
            AssetError: a file that will be read is not there, as after a broken download.
        """
        used = [self.part(*DENOISERS), self.part(*DECODERS), self.part("scheduler")]
        if not random:
            self._check_complete()
            used += [self.part(name) for name in TEXT]
        files = [self.path / "model_index.json"] if self.parts else []
        for folder in dict.fromkeys(folder for folder in used if folder is not None):
            drawn = random and folder == used[0]
            files += _texts(folder) if drawn else [*_texts(folder), *_weights(folder)]
        total = hashlib.sha256()
        for file in dict.fromkeys(files):
            total.update(f"{file.relative_to(self.path)}\0{_sha256(file)}\n".encode())
        return total.hexdigest()

    def _check_complete(self) -> None:
        """AssetError unless every component that will be read is here with its weights."""
        named = [name for name, what in self.parts.items() if isinstance(what, list) and any(what)]
        known = (*DENOISERS, *DECODERS, *TEXT)
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
    if Path(source).expanduser().is_dir():
        return Folder(Path(source).expanduser())
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = snapshot_download(source, revision=revision or None, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        wanted = f"{source} at {revision}" if revision else source
        raise api.AssetError(
            f"model '{name}' needs {wanted}, which is neither a folder nor in the cache of the "
            f"Hugging Face hub on this machine. Fetch it with `hf download {source}"
            f"{f' --revision {revision}' if revision else ''}`, give a local folder with option "
            "'source', or take weights = \"random\" for speed and memory."
        ) from None
    return Folder(Path(path))


def load_network(folder: Path, kind: str, *, dtype: torch.dtype) -> nn.Module:
    """The network in `folder` with its weights, on the CPU.

    Raises:
        AssetError: its weights are missing or not those of its configuration.
    """
    import diffusers

    config = read_json(folder / "config.json")
    try:
        with no_bars():
            network: nn.Module = getattr(diffusers, kind).from_pretrained(
                folder, dtype=dtype, local_files_only=True, **without_heads(config)
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise api.AssetError(
            f"{folder}: expected the weights of a {kind}, found another thing: {error}"
        ) from error
    set_heads(network, config)
    return network.eval().requires_grad_(False)


def random_network(kind: str, config: dict[str, Any], *, dtype: torch.dtype) -> nn.Module:
    """The architecture with random weights, on the CPU; the same at every call.

    Every tensor comes from a generator of its own, seeded by its name, and is made in `dtype` at
    once, so that nothing takes memory besides the weights.
    """
    import diffusers

    with torch.device("meta"):
        network: nn.Module = getattr(diffusers, kind).from_config(
            {**config, **without_heads(config)}
        )
    set_heads(network, config)
    for prefix, module in network.named_modules():
        for key, blank in list(module.named_parameters(recurse=False)):
            value = _random(f"{prefix}.{key}", blank, dtype, norm="norm" in prefix)
            module.register_parameter(key, torch.nn.Parameter(value, requires_grad=False))
        for key, blank in list(module.named_buffers(recurse=False)):
            if blank.is_meta:
                persistent = key not in module._non_persistent_buffers_set
                table = _table(network, prefix, key, config, kind).to(dtype)
                module.register_buffer(key, table, persistent=persistent)
    return network.eval()


def _random(name: str, blank: torch.Tensor, dtype: torch.dtype, *, norm: bool) -> torch.Tensor:
    if blank.dim() < 2:
        filled = torch.ones if norm and name.endswith("weight") else torch.zeros
        return filled(blank.shape, dtype=dtype)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(seed)
    fan = blank[0].numel()
    return torch.empty(blank.shape, dtype=dtype).normal_(std=fan**-0.5, generator=generator)


def _table(
    network: nn.Module, prefix: str, key: str, config: dict[str, Any], kind: str
) -> torch.Tensor:
    """A buffer's values (a positional table), from the module built alone."""
    from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed

    module = network.get_submodule(prefix)
    if not isinstance(module, PatchEmbed) or key != "pos_embed":
        raise api.QuantizationError(
            f"{kind}: buffer '{prefix}.{key}' has values that random weights do not know; expected "
            "networks whose only buffers are positional tables."
        )
    side = int(config["sample_size"]) // int(config["patch_size"])
    table = get_2d_sincos_pos_embed(
        module.pos_embed.shape[-1],
        side,
        base_size=module.base_size,
        interpolation_scale=module.interpolation_scale,
        output_type="pt",
    )
    return table.float().unsqueeze(0)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; AssetError when there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise api.AssetError(
            f"{path}: expected a JSON object, found {error or 'another'}."
        ) from None
    return found


def weights_fault(folder: Path) -> str:
    """What is wrong with a component's weight files; empty when all are there."""
    weights = _weights(folder)
    if not weights:
        return "no weights"
    found = {path.name for path in weights}
    # An index beside an undivided file is not needed.
    if all("-of-" in name for name in found):
        for index in folder.glob(f"*{weights[0].suffix}.index.json"):
            shards = set(dict(read_json(index).get("weight_map", {})).values())
            absent = sorted(shards - found)
            if absent and index.name.count(".") == 3:  # variants have a dot more
                return f"{len(absent)} of {len(shards)} weight files absent, {absent[0]} first"
    return ""


def _files(folder: Path) -> list[Path]:
    """The files of a component, without those of variants."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.count(".") == 1)


def _texts(folder: Path) -> list[Path]:
    """Configurations and vocabularies."""
    return [path for path in _files(folder) if path.suffix in (".json", ".txt", ".model")]


def _weights(folder: Path) -> list[Path]:
    """What diffusers reads of a component: safetensors before pickles."""
    files = _files(folder)
    tensors = [path for path in files if path.suffix == ".safetensors"]
    return tensors or [path for path in files if path.suffix == ".bin"]


def _sha256(path: Path) -> str:
    status = path.stat()
    return _hashed(path.resolve(), status.st_mtime_ns, status.st_size)


@cache
def _hashed(path: Path, mtime: int, size: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
