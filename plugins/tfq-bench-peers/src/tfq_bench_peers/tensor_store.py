"""Tensors of a quantized torch network as a safetensors file: no pickle, whatever their class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tfq_bench.api import LoweringError

__all__ = ["read_into", "write"]

FILE = "network.safetensors"


def write(network: nn.Module, folder: Path) -> None:
    """Writes every parameter and buffer; of a tensor subclass the plain tensors inside of it."""
    tensors = {name: plain.detach().clone().contiguous() for name, plain in _plain(network)}
    save_file(tensors, folder / FILE)


@torch.no_grad()
def read_into(network: nn.Module, folder: Path) -> None:
    """Fills a network that was quantized the same way with what `write` wrote.

    Raises:
        LoweringError: the file has other tensors, as of another version of the tool.
    """
    stored = load_file(folder / FILE)
    plain = dict(_plain(network))
    if plain.keys() != stored.keys():
        odd = sorted(plain.keys() ^ stored.keys())
        raise LoweringError(
            f"'{folder / FILE}': expected the tensors of this network, found others: {odd[:3]}."
        )
    for name, tensor in plain.items():
        if tensor.shape != stored[name].shape or tensor.dtype != stored[name].dtype:
            raise LoweringError(
                f"'{folder / FILE}': tensor '{name}' is expected {tensor.dtype} "
                f"{tuple(tensor.shape)}, found {stored[name].dtype} {tuple(stored[name].shape)}."
            )
        tensor.copy_(stored[name])


def _plain(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in network.state_dict(keep_vars=True).items():
        yield from _inside(name, tensor)


def _inside(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if type(tensor) in (Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    for inner in tensor.__tensor_flatten__()[0]:
        yield from _inside(f"{name}:{inner}", getattr(tensor, inner))
