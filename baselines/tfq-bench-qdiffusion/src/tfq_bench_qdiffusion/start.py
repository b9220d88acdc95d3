"""Where learning of activation steps starts: a range per layer input, or per half of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import FULL_PRECISION, CalibrationData
from tfq_bench.quant import (
    ActivationTable,
    Exempt,
    InputRanges,
    LayerBits,
    affine_from_range,
    observe_inputs,
)

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.api import LoadedModel, Progress
    from tfq_bench.quant.observe import RangeMethod

__all__ = ["Bounds", "start_tables", "take"]

Bounds = tuple[tuple[int, int], ...]
"""Input channels [start, stop) of each part of a layer."""

MOMENTUM = 0.95
"""Of ranges that follow batches (released code)."""


def start_tables(
    loaded: LoadedModel,
    data: CalibrationData,
    plan: Mapping[str, LayerBits | Exempt],
    parts: Mapping[str, Bounds],
    *,
    method: RangeMethod,
    symmetric: bool,
    batch: int,
    generator: torch.Generator,
    progress: Progress,
) -> dict[str, tuple[ActivationTable, ...]]:
    """One static table per part of each layer whose activations the plan quantizes.

    Args:
        data: what full-precision inputs are observed on.
        parts: by layer name, see `tfq_bench.quant.working.input_parts`.
        symmetric: whether the zero point is the middle code.
        batch: samples per network call; a range that follows batches depends on it.
        generator: CPU generator of the sample behind `mse`.

    Raises:
        CalibrationError: no samples, a layer that never ran, or inputs that are not finite.
    """
    bits = {
        name: held.abits
        for name, held in plan.items()
        if isinstance(held, LayerBits) and held.abits != FULL_PRECISION
    }
    if not bits:
        return {}
    ranges = InputRanges(
        method, batches=-(-len(data.x) // batch), generator=generator, momentum=MOMENTUM
    )
    channel_dim = {
        layer.name: 1 if layer.kind == "conv2d" else -1 for layer in loaded.topology.layers
    }

    def observe(name: str, x: Tensor) -> None:
        for number, (start, stop) in enumerate(parts[name]):
            piece = x.narrow(channel_dim[name], start, stop - start)
            ranges.update(_key(name, number), piece)

    observe_inputs(loaded, data, batch=batch, observe=observe, layers=bits, progress=progress)
    return {
        name: tuple(
            _table(ranges.range(_key(name, number), held), held, symmetric=symmetric)
            for number in range(len(parts[name]))
        )
        for name, held in bits.items()
    }


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


def _key(name: str, number: int) -> str:
    return name if number == 0 else f"{name} (part {number + 1})"


def _table(limits: tuple[Tensor, Tensor], bits: int, *, symmetric: bool) -> ActivationTable:
    scale, zero_point = affine_from_range(*limits, bits=bits, symmetric=symmetric)
    return ActivationTable(bits=bits, scale=scale.cpu(), zero_point=zero_point.cpu())
