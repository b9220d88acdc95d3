"""Ranges of inputs that an already quantized part of the network makes (released code).

One pass: weights are quantized, and each layer's input is quantized with the range that it has just
extended, before the layer reads it. So every range is of inputs as they will be, up to later
updates of the ranges before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import CalibrationError
from tfq_bench.quant import affine_from_range, fake_quantize, simulate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.api import CalibrationData, LoadedModel
    from tfq_bench.quant import QuantizedState
    from tfq_bench_ptq4dm.ranges import ClipRanges

__all__ = ["observe_behind_prefix"]


@torch.no_grad()
def observe_behind_prefix(
    loaded: LoadedModel,
    state: QuantizedState,
    data: CalibrationData,
    ranges: ClipRanges,
    *,
    bits: Mapping[str, int],
    batch: int,
    progress: Callable[[float], None],
) -> None:
    """Shows `ranges` the inputs of the layers in `bits`, batch by batch, in the order of `data`.

    Args:
        state: quantized weights, float activations. The simulated network is a second one in
            memory, its weights in float32.
        bits: of each input's codes, by layer name.
        batch: rows of `data` per network call, which is one update of each range.
        progress: called with the finished fraction.

    Raises:
        CalibrationError: there are no samples, or inputs that are not finite.
    """
    if len(data.x) == 0:
        raise CalibrationError(
            "static activation ranges need calibration data, found no samples; ask for at least "
            "one calibration image."
        )
    network = simulate(loaded, state).network

    def quantize_input(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = inputs[0]
            ranges.update(name, x)
            scale, zero_point = affine_from_range(*ranges.range(name), bits[name])
            return (fake_quantize(x, scale, zero_point, bits[name]).to(x.dtype), *inputs[1:])

        return hook

    for name in bits:
        network.get_submodule(name).register_forward_pre_hook(quantize_input(name))
    for start in range(0, len(data.x), batch):
        rows = slice(start, start + batch)
        loaded.model.predict(
            network,
            data.x[rows],
            data.timestep[rows],
            {name: value[rows] for name, value in data.condition.items()},
        )
        progress(min(1.0, (start + batch) / len(data.x)))
