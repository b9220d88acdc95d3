"""Single blocks of diffusers whose layers are kernels, computed by the kernels' reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tfq_bench.api import StepCursor
from tfq_bench.quant.state.quantized_state import QuantizedLayer
from tfq_bench.testing.by_hand import quantized_layer
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import Tile
from tfq_bench_cuda.layers import CudaConv2d, CudaLinear
from tfq_bench_cuda.weights import moved

__all__ = ["difference", "numbers", "swap_layers"]

TILE = Tile(m=128, n=128, k=32, stages=3, threads=256)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(expected: Tensor, found: Tensor) -> float:
    """Root mean square of the difference over that of what was expected."""
    assert expected.shape == found.shape
    assert expected.dtype == found.dtype
    apart = (found.double() - expected.double()).square().mean().sqrt()
    return float(apart / expected.double().square().mean().sqrt())


def swap_layers(
    block: nn.Module,
    call: Callable[[], Any],
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    change: Callable[[str, QuantizedLayer], QuantizedLayer] = lambda _, layer: layer,
    kernels: Any = None,
    tiles: Any = None,
    device: str = "cpu",
    splits: Mapping[str, int] | None = None,
    **bits: int,
) -> StepCursor:
    """Puts kernels in the place of all layers of a block, with tables of three steps.

    Args:
        call: runs the block, so that the range of each input is seen.
        ranges: of inputs instead of what is seen, by the end of a layer's name.
        change: makes another of a layer, by name.
        splits: the first input channel of a second part, by layer.
    """
    # As wide as what comes out, so that names tell which product it is.
    chosen = {"tiles": tiles or (lambda outputs, *_, **__: replace(TILE, n=outputs))}
    modules = {
        name: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    seen: dict[str, tuple[float, float]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: seen.update({name: [float(v) for v in given[0].aminmax()]})
        )
        for name, module in modules.items()
    ]
    call()
    for handle in handles:
        handle.remove()
    step: StepCursor = StepCursor(device)
    for name, module in modules.items():
        bounds = seen.get(name, (-3.0, 4.0))
        for end, other in (ranges or {}).items():
            bounds = other if name.endswith(end) else bounds
        dtype = module.weight.dtype
        split = (splits or {}).get(name)
        original = module.float().cpu()
        layer = change(name, quantized_layer(name, original, *bounds, split=split, **bits))
        layer = moved(layer, torch.device(device))
        shared = (kernels or ReferenceKernels(), step, {})  # each counts its own
        where = {**chosen, "device": torch.device(device), "dtype": dtype}
        made: nn.Module
        if isinstance(module, nn.Linear):
            made = CudaLinear(layer, *shared, **where)
        else:
            geometry = Geometry(
                kernel=module.kernel_size,
                stride=module.stride,
                padding=module.padding,
                dilation=module.dilation,
            )
            made = CudaConv2d(layer, geometry, *shared, **where)
        parent, _, attribute = name.rpartition(".")
        setattr(block.get_submodule(parent), attribute, made)
    return step
