"""Which blocks of a network are fused, and why others are not."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable
from tfq_bench_cuda.blocks.output import FusedOutput
from tfq_bench_cuda.layers import CudaLayer

__all__ = ["BLOCKS", "BlockUse", "fuse"]

BLOCKS: dict[str, str] = {
    "Attention": "tfq_bench_cuda.blocks.pixel_attention:FusedAttention",
    "BasicTransformerBlock": "tfq_bench_cuda.blocks.ada_transformer:transformer_block",
    "Downsample2D": "tfq_bench_cuda.blocks.resample:FusedDownsample",
    "ResnetBlock2D": "tfq_bench_cuda.blocks.resnet:FusedResnet",
    "Transformer2DModel": "tfq_bench_cuda.blocks.transformer_2d:Transformer2D",
    "Upsample2D": "tfq_bench_cuda.blocks.resample:FusedUpsample",
}
"""Class name of a block of diffusers, and the fused pass for it, `module:class`.

Passes are made outside in, so a block may be part of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockUse:
    """How one known block is executed.

    Args:
        kind: its class. layers: names of the quantized layers that its pass runs.
        reason: why it is not fused; None when it is.
        remarks: what its pass could not do.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    reason: str | None = None
    remarks: tuple[str, ...] = ()


def fuse(network: nn.Module) -> list[BlockUse]:
    """Exchanges the `forward` of every known block whose layers are kernels.

    Args:
        network: a backend's own, its quantized layers and attention replaced already.

    Returns:
        A `BlockUse` of every known block that has kernels which no outer block runs already.
    """
    names = {module: name for name, module in network.named_modules()}
    uses: list[BlockUse] = []
    taken: set[str] = set()
    for name, block, kind in _known(network):
        inside = tuple(n for m, n in names.items() if isinstance(m, CudaLayer) and _in(n, name))
        if taken.issuperset(inside):
            continue
        module, _, attribute = BLOCKS[kind].partition(":")
        try:
            fused: FusedBlock = getattr(importlib.import_module(module), attribute)(name, block)
        except Unfusable as reason:
            uses.append(BlockUse(name=name, kind=kind, layers=inside, reason=str(reason)))
            continue
        fused.install()
        layers = tuple(names[layer] for layer in fused.layers)
        taken.update(layers)
        uses.append(BlockUse(name=name, kind=kind, layers=layers, remarks=fused.remarks))
    uses.extend(_output(network))
    return uses


def _output(network: nn.Module) -> Iterator[BlockUse]:
    """The norm before a U-Net's last convolution, when that is a kernel."""
    last = getattr(network, "conv_out", None)
    if not isinstance(last, CudaLayer) or not hasattr(network, "conv_norm_out"):
        return
    use = BlockUse(name="conv_out", kind="output", layers=("conv_out",))
    try:
        FusedOutput("conv_out", network).install()
    except Unfusable as reason:
        use = replace(use, reason=str(reason))
    yield use


def _known(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Blocks of diffusers' own classes; a class of the same name from elsewhere is another."""
    for name, module in list(network.named_modules()):
        kind = type(module)
        if kind.__name__ in BLOCKS and kind.__module__.partition(".")[0] == "diffusers":
            yield name, module, kind.__name__


def _in(layer: str, block: str) -> bool:
    return layer.startswith(f"{block}.")
