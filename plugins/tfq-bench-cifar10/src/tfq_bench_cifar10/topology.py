"""Layer roles, blocks and split points: those of any network of diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tfq_bench_cifar10.network import TOKENS_SHAPE, class_table
from tfq_bench_diffusers.topology import diffusers_topology

if TYPE_CHECKING:
    from torch import nn

    from tfq_bench import api
    from tfq_bench_cifar10.network import Network

__all__ = ["network_topology"]


def network_topology(network: Network, module: nn.Module) -> api.Topology:
    """The topology of `module`, which `network.build` made, whatever its weights are."""
    dtype = next(module.parameters()).dtype
    inputs = {
        network.state: torch.zeros(1, 3, 32, 32, dtype=dtype),
        "timestep": torch.zeros(1, dtype=torch.int64),
    }
    if network.argument:
        tokens = torch.zeros(TOKENS_SHAPE) if network.tokens else None
        row = class_table(tokens)[:1]
        inputs[network.argument] = row.to(dtype) if network.tokens else row
    return diffusers_topology(module, inputs)
