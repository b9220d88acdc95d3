"""Running a network on meta tensors, which have shapes but no values and take no memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["call_with", "meta_inputs", "meta_tensors", "named_tensors"]


def call_with(network: nn.Module, held: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> Any:
    """What the network gives when `held` stand for its parameters and buffers."""
    with torch.no_grad():
        return torch.func.functional_call(network, dict(held), args=(), kwargs=dict(inputs))


def meta_tensors(network: nn.Module) -> dict[str, Tensor]:
    """An empty tensor for each parameter and buffer of the network, by name."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in named}


def meta_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments with empty tensors; whatever is no tensor stays."""
    moved: dict[str, Any] = pytree.tree_map_only(
        Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), dict(inputs)
    )
    return moved


def named_tensors(inputs: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of nested mappings and sequences by its dotted path."""
    if isinstance(inputs, Tensor):
        return {prefix: inputs}
    pairs: Any = ()
    if isinstance(inputs, Mapping):
        pairs = inputs.items()
    elif isinstance(inputs, (list, tuple)):
        pairs = enumerate(inputs)
    return {
        path: tensor
        for key, value in pairs
        for path, tensor in named_tensors(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
