"""A model's network: from disk, or of random weights."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.folders import weights_of
from tfq_bench_diffusers.heads import set_heads, without_heads
from tfq_bench_diffusers.progress_bars import no_bars
from tfq_bench_diffusers.tensors import check_tensors, listed

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_weights", "empty_network", "load_network", "random_network"]


def empty_network(kind: str, config: dict[str, Any], where: Path | str) -> nn.Module:
    """A network of diffusers without values, on the meta device.

    Raises:
        AssetError: diffusers cannot build it from this configuration.
    """
    import diffusers

    try:
        with torch.device("meta"):
            network: nn.Module = getattr(diffusers, kind).from_config(
                {**config, **without_heads(config)}
            )
        set_heads(network, config)
    except Exception as error:
        # Whatever the constructor does with values that it was not written for.
        raise api.AssetError(
            f"{where}: diffusers cannot build a {kind} from config.json: "
            f"{type(error).__name__}: {api.printable(error, 300)}"
        ) from error
    return network


def check_weights(folder: Path, kind: str, config: dict[str, Any]) -> None:
    """Nothing, when the folder's weights are the tensors that its configuration asks for.

    Raises:
        AssetError: they are not; names the tensors. Nothing but headers of files is read.
    """
    check_tensors(empty_network(kind, config, folder), weights_of(folder), folder)


def load_network(
    folder: Path, kind: str, config: dict[str, Any], *, dtype: torch.dtype
) -> nn.Module:
    """The network in `folder` with its weights, on the CPU.

    Raises:
        AssetError: its weights are missing or not those of its configuration.
    """
    import diffusers

    check_weights(folder, kind, config)
    try:
        with no_bars():
            network, told = getattr(diffusers, kind).from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=weights_of(folder).safe,
                output_loading_info=True,
                **without_heads(config),
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise api.AssetError(
            f"{folder}: expected the weights of a {kind}, found another thing: "
            f"{api.printable(error, 500)}"
        ) from error
    blank = [name for name, value in network.state_dict().items() if value.is_meta]
    if told.get("missing_keys") or blank:
        raise api.AssetError(
            f"{folder}: expected all weights of a {kind}, found none for "
            f"{listed({*told['missing_keys'], *blank})}."
        )
    set_heads(network, config)
    loaded: nn.Module = network.eval().requires_grad_(False)
    return loaded


def random_network(kind: str, config: dict[str, Any], *, dtype: torch.dtype) -> nn.Module:
    """The architecture with random weights, on the CPU; the same at every call.

    Every tensor comes from a generator of its own, seeded by its name, and is made in `dtype` at
    once, so that nothing takes memory besides the weights.
    """
    network = empty_network(kind, config, f"random {kind}")

    def fill(place: tuple[str, nn.Module, str, torch.Tensor]) -> None:
        prefix, module, key, blank = place
        value = _random(f"{prefix}.{key}", blank, dtype, norm="norm" in prefix)
        module.register_parameter(key, torch.nn.Parameter(value, requires_grad=False))

    places = [
        (prefix, module, key, blank)
        for prefix, module in network.named_modules()
        for key, blank in module.named_parameters(recurse=False)
    ]
    # One core draws 30 million numbers a second, and SDXL has 2,567 million.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, places))
    for prefix, module in network.named_modules():
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
