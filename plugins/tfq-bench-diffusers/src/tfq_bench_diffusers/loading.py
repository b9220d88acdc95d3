"""A model's network: from disk, or of random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.folders import read_json
from tfq_bench_diffusers.heads import set_heads, without_heads
from tfq_bench_diffusers.quiet import no_bars

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_network", "random_network"]


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
