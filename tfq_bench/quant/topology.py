"""A network's layers and blocks in the order in which they run, recorded by forward hooks.

The order of registration is not the order of execution: a diffusers U-Net registers `up_blocks`
before `mid_block`. So the network is run once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.layers import WeightedLayer
from tfq_bench.quant.lower.attention import is_attention
from tfq_bench.types import Block, Layer, LayerKind, Role, Topology

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["trace_topology"]

_log = logging.getLogger("tfq_bench.quant")


@torch.no_grad()
def trace_topology(
    network: nn.Module,
    call: Callable[[nn.Module], Any],
    role_of: Callable[[str, nn.Module], Role],
    block_of: Callable[[str], str],
    *,
    splits: Mapping[str, int] | None = None,
    float_types: tuple[type[nn.Module], ...] = (nn.Embedding,),
    time_features: tuple[str, ...] | None = None,
) -> Topology:
    """The topology of what `call` runs.

    Args:
        call: runs the network once for a batch of ONE image, so that the counted
            multiply-accumulates are per image.
        role_of: the role of a layer, from its name and module.
        block_of: the name of the block that a layer belongs to; its own name for a lone layer.
        splits: input channels of the first half, by name of the layers that read a concatenation.
        float_types: modules with weights that stay float by declaration.
        time_features: see `Topology`; the time projections when not given.

    Raises:
        QuantizationError: a module of an unknown type holds a weight (it would silently stay
            float), a convolution pads with anything but zeros, or a split that does not fit.
    """
    names: dict[nn.Module, str] = {}
    for name, module in network.named_modules():
        if isinstance(module, WeightedLayer):
            names[module] = name
        elif not isinstance(module, float_types):
            _refuse_unknown(name, module)
    macs: dict[str, int] = {}

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module, WeightedLayer)
        name = names[module]
        macs[name] = macs.get(name, 0) + output.numel() * module.weight[0].numel()

    attention: dict[str, None] = {}

    def attend(name: str) -> Callable[..., None]:
        return lambda *_: attention.setdefault(name)

    handles = [module.register_forward_hook(count) for module in names]
    handles += [
        module.register_forward_hook(attend(name))
        for name, module in network.named_modules()
        if is_attention(module)
    ]
    try:
        call(network)
    finally:
        for handle in handles:
            handle.remove()
    idle = sorted(set(names.values()) - set(macs))
    if idle:
        _log.warning("layers that did not run stay float: %s", ", ".join(idle))
    splits = {} if splits is None else splits
    strangers = sorted(set(splits) - set(macs))
    if strangers:
        raise QuantizationError(f"split points name layers that did not run: {strangers[:3]}.")
    modules = {name: module for module, name in names.items()}
    layers = tuple(
        _layer(name, modules[name], role_of, block_of, share, splits.get(name))
        for name, share in macs.items()
    )
    blocks: dict[str, list[str]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer.name)
    projections = tuple(layer.name for layer in layers if layer.role == "time-projection")
    return Topology(
        layers=layers,
        blocks=tuple(Block(name=name, layers=tuple(held)) for name, held in blocks.items()),
        time_mlp=tuple(layer.name for layer in layers if layer.role == "time-mlp"),
        time_projections=projections,
        time_features=projections if time_features is None else time_features,
        attention=tuple(attention),
    )


def _layer(
    name: str,
    module: nn.Module,
    role_of: Callable[[str, nn.Module], Role],
    block_of: Callable[[str], str],
    macs: int,
    split: int | None,
) -> Layer:
    assert isinstance(module, WeightedLayer)
    kind: LayerKind = "linear"
    channels = module.weight.shape[1]
    if isinstance(module, nn.Conv2d):
        kind = "conv2d"
        channels = module.in_channels
        if module.padding_mode != "zeros":
            raise QuantizationError(
                f"convolution '{name}': expected padding with zeros, found '{module.padding_mode}'."
            )
    if split is not None and not 0 < split < channels:
        raise QuantizationError(
            f"layer '{name}': a split point lies in 1..{channels - 1}, found {split}."
        )
    return Layer(
        name=name,
        kind=kind,
        role=role_of(name, module),
        block=block_of(name),
        weight_shape=tuple(module.weight.shape),
        macs=macs,
        split=split,
    )


def _refuse_unknown(name: str, module: nn.Module) -> None:
    for key, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1:
            raise QuantizationError(
                f"'{name or 'the network'}' is a {type(module).__name__} with a weight '{key}' of "
                f"shape {tuple(parameter.shape)}; expected Conv2d or Linear. Declare the type in "
                "`float_types` when it is to stay float."
            )
