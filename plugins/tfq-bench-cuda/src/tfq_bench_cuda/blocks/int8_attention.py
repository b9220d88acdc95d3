"""The backend's option `attention = "int8"`: self-attention whose first product is in int8."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from tfq_bench_cuda.blocks.fuse import BlockUse
from tfq_bench_cuda.blocks.pixel_attention import FusedAttention
from tfq_bench_cuda.blocks.transformer import TransformerBlock

__all__ = ["install_int8"]


def install_int8(network: nn.Module, blocks: Iterable[BlockUse]) -> dict[str, str | None]:
    """Lets the self-attention of fused blocks multiply queries and keys in int8, where it can.

    Calls with a mask stay in 16 bit.

    Args:
        blocks: what `fuse` said of the network.

    Returns:
        Each fused block with self-attention: why its products stay in 16 bit, None where not.
    """
    found: dict[str, str | None] = {}
    for use in blocks:
        fused = network.get_submodule(use.name).forward
        if isinstance(fused, FusedAttention | TransformerBlock):
            found[use.name] = fused.attention.refusal
            if fused.attention.refusal is None:
                fused.attention.qk = "int8"
    return found
