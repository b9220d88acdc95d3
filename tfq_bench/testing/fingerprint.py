"""What a network was, to see later that nobody changed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Fingerprint", "same_tensors"]


class Fingerprint:
    """Weights, modules, hooks, mode and gradient flags of a network at one moment."""

    def __init__(self, network: nn.Module) -> None:
        self._tensors = {name: value.clone() for name, value in network.state_dict().items()}
        self._modules = _modules(network)

    def check(self, network: nn.Module) -> None:
        """AssertionError when `network` is no longer what it was."""
        assert self._modules == _modules(network), (
            "modules, hooks, mode or gradient flags of the network were changed"
        )
        same_tensors(self._tensors, network.state_dict(), "the network's weights")


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    """AssertionError, which says `what`, unless both hold equal tensors in the same order."""
    assert list(one) == list(other), f"{what}: other names"
    for name, value in one.items():
        assert torch.equal(value, other[name]), f"{what}: {name} differs"


def _modules(network: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (
            name,
            type(module),
            module.training,
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            *(parameter.requires_grad for parameter in module.parameters(recurse=False)),
        )
        for name, module in network.named_modules()
    ]
