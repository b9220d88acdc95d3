"""Layer roles, blocks and split points of a diffusers `UNet2DModel`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.quant.topology import trace_topology

if TYPE_CHECKING:
    from torch import nn

    from tfq_bench import api

__all__ = ["unet_topology"]

_ROLES: tuple[tuple[str, api.Role], ...] = (
    (r"conv_in", "input"),
    (r"conv_out", "output"),
    (r"time_embedding\..*", "time-mlp"),
    (r".*\.time_emb_proj", "time-projection"),
    (r".*\.conv_shortcut", "shortcut"),
    (r".*\.(down|up)samplers\..*", "resample"),
    (r".*\.attentions\..*", "attention"),
    (r".*\.resnets\.\d+\.conv[12]", "conv"),
)
_BLOCK = re.compile(r"(.*\.(?:resnets|attentions)\.\d+)\..*")


def unet_topology(network: nn.Module) -> api.Topology:
    """The topology of a `UNet2DModel`, found by running it once on one image."""
    device = next(network.parameters()).device
    x = torch.zeros((1, 3, 32, 32), device=device)
    t = torch.zeros(1, dtype=torch.int64, device=device)

    def call(net: nn.Module) -> None:
        with torch.no_grad():
            net(x, t)

    return trace_topology(network, call, _role, _block, splits=_splits(network, call))


def _role(name: str, module: nn.Module) -> api.Role:  # noqa: ARG001
    for pattern, role in _ROLES:
        if re.fullmatch(pattern, name):
            return role
    return "other"


def _block(name: str) -> str:
    match = _BLOCK.fullmatch(name)
    return match.group(1) if match else name


def _splits(network: Any, call: Callable[[nn.Module], None]) -> dict[str, int]:
    """Channels of the first half of each concatenation in front of a shortcut convolution.

    Up blocks concatenate the state with a stored one outside of the residual block, which sees
    one tensor only; the stored ones are read where the up block receives them.
    """
    stored: dict[str, list[int]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
            tensors = kwargs.get("res_hidden_states_tuple", args[1] if len(args) > 1 else ())
            stored[name] = [tensor.shape[1] for tensor in tensors]

        return hook

    handles = [
        block.register_forward_pre_hook(remember(f"up_blocks.{i}"), with_kwargs=True)
        for i, block in enumerate(network.up_blocks)
    ]
    try:
        call(network)
    finally:
        for handle in handles:
            handle.remove()
    splits = {}
    for i, block in enumerate(network.up_blocks):
        skips = stored[f"up_blocks.{i}"]
        for j, resnet in enumerate(block.resnets):
            first = resnet.in_channels - skips[-1 - j]
            assert 0 < first < resnet.in_channels, "the stored state is wider than the input"
            if resnet.conv_shortcut is not None:
                splits[f"up_blocks.{i}.resnets.{j}.conv_shortcut"] = first
    return splits
