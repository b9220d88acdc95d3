"""Where learning of activation steps starts: a range per layer input, or per half of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import FULL_PRECISION, CalibrationData
from tfq_bench.quant import ActivationTable, InputRanges, affine_from_range

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.api import Progress
    from tfq_bench.quant.observe import RangeMethod
    from tfq_bench.quant.working import WorkingLayer, WorkingNetwork

__all__ = ["set_start_tables", "take"]

MOMENTUM = 0.95
"""Of ranges that follow batches (released code)."""


@torch.no_grad()
def set_start_tables(
    working: WorkingNetwork,
    data: CalibrationData,
    *,
    method: RangeMethod,
    symmetric: bool,
    batch: int,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Gives one static table to each part of each layer whose activations have bits.

    The inputs are those of the network with its present weights and float activations.

    Args:
        data: what inputs are observed on.
        symmetric: whether the zero point is the middle code.
        batch: samples per network call; a range that follows batches depends on it.
        generator: CPU generator of the sample behind `mse`.

    Raises:
        CalibrationError: a layer that never ran, or inputs that are not finite.
    """
    layers = {
        name: layer for name, layer in working.layers.items() if layer.bits.abits != FULL_PRECISION
    }
    if not layers:
        return
    count = len(data.x)
    ranges = InputRanges(method, batches=-(-count // batch), generator=generator, momentum=MOMENTUM)
    working.set(activations="float")
    handles = [layer.register_forward_pre_hook(_watch(layer, ranges)) for layer in layers.values()]
    try:
        for start in range(0, count, batch):
            rows = slice(start, start + batch)
            working.predict(
                data.x[rows],
                data.timestep[rows],
                {name: value[rows] for name, value in data.condition.items()},
                data.step[rows],
            )
            progress(min(start + batch, count) / count, "observing inputs")
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers.values():
        bits = layer.bits.abits
        tables = []
        for number in range(len(layer.pieces)):
            low, high = ranges.range(_key(layer, number), bits)
            scale, zero_point = affine_from_range(low, high, bits=bits, symmetric=symmetric)
            tables.append(
                ActivationTable(bits=bits, scale=scale.cpu(), zero_point=zero_point.cpu())
            )
        layer.set_tables(tables)


def take(data: CalibrationData, index: Tensor) -> CalibrationData:
    """The samples of `data` at `index`, int64 `[M]`, in that order."""
    index = index.to(data.x.device)
    return CalibrationData(
        x=data.x[index],
        timestep=data.timestep[index],
        step=data.step[index],
        image=data.image[index],
        condition={name: value[index] for name, value in data.condition.items()},
        network_calls=data.network_calls,
    )


def _watch(
    layer: WorkingLayer, ranges: InputRanges
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    channel_dim = 1 if layer.spec.kind == "conv2d" else -1

    def observe(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for number, part in enumerate(layer.pieces):
            piece = inputs[0].narrow(channel_dim, part.start, part.stop - part.start)
            ranges.update(_key(layer, number), piece)

    return observe


def _key(layer: WorkingLayer, number: int) -> str:
    return layer.spec.name if number == 0 else f"{layer.spec.name} (second half)"
