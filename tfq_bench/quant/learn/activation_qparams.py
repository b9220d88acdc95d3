"""Activation tables of a fake-quantized network, from the inputs that its layers get.

Inputs are those of the network with its present weights and float activations. A layer whose input
has parts (see `layers.input_parts`) gets a table for each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import CalibrationError
from tfq_bench.quant.calibrate.observers import InputRanges
from tfq_bench.quant.layers import part_name
from tfq_bench.quant.state.affine import affine_from_range
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.types import FULL_PRECISION, CalibrationData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.quant.calibrate.observers import RangeMethod
    from tfq_bench.quant.learn.fake_quant_layer import FakeQuantLayer
    from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
    from tfq_bench.types.tasks import Progress

__all__ = ["RELEASED_MOMENTUM", "by_step", "set_activation_qparams", "take"]

RELEASED_MOMENTUM = 0.95
"""Of ranges that follow batches, in the released code of Q-Diffusion and of TFMQ-DM."""


@torch.no_grad()
def set_activation_qparams(
    fake_quant: FakeQuantNetwork,
    data: CalibrationData,
    names: Collection[str],
    *,
    groups: Sequence[Tensor],
    method: RangeMethod,
    symmetric: bool,
    batch: int,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Gives each part of each layer in `names` an activation table, in place.

    Layers that are exempt, or whose activations stay float, get none.

    Args:
        groups: int64 rows of `data`, one tensor for each entry that the tables will have: a single
            one for a static range, one for every sampler step (see `by_step`) for ranges per step.
            A range that follows batches depends on their order.
        symmetric: whether the zero point is the middle code.
        batch: samples per network call; a range that follows batches depends on it.
        generator: CPU generator of the sample behind `mse` and `percentile`.

    Raises:
        CalibrationError: a group without samples, a layer that never ran, or inputs that are not
            finite.
    """
    layers = [
        layer
        for name, layer in fake_quant.layers.items()
        if name in names and layer.bits.abits != FULL_PRECISION
    ]
    if not layers:
        return
    fake_quant.set(activations="float")
    entries: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for number, rows in enumerate(groups):
        if len(rows) == 0:
            where = f" of sampler step {number}" if len(groups) > 1 else ""
            raise CalibrationError(
                f"activation ranges need calibration data, found no samples{where}; ask for at "
                "least one calibration image."
            )
        batches = torch.split(rows, batch)
        ranges = InputRanges(
            method, batches=len(batches), generator=generator, momentum=RELEASED_MOMENTUM
        )
        for count, chosen in enumerate(batches, start=1):
            _observe(fake_quant, take(data, chosen), layers, ranges)
            progress((number + count / len(batches)) / len(groups), "observing inputs")
        for layer in layers:
            for key, _, _ in _parts(layer):
                low, high = ranges.range(key, layer.bits.abits)
                pair = affine_from_range(low, high, layer.bits.abits, symmetric)
                entries.setdefault(key, []).append(pair)
    for layer in layers:
        layer.set_tables(
            [_table(layer.bits.abits, entries[key]) for key, _, _ in _parts(layer)],
        )


def by_step(data: CalibrationData, steps: int) -> list[Tensor]:
    """Rows of `data` at each of `steps` sampler steps, int64, in the order of the data."""
    return [torch.nonzero(data.step == step).flatten() for step in range(steps)]


def take(data: CalibrationData, rows: Tensor) -> CalibrationData:
    """The samples of `data` at `rows`, int64 `[M]`, in that order."""
    rows = rows.to(data.x.device)
    return CalibrationData(
        x=data.x[rows],
        timestep=data.timestep[rows],
        step=data.step[rows],
        image=data.image[rows],
        condition={name: value[rows] for name, value in data.condition.items()},
    )


def _observe(
    fake_quant: FakeQuantNetwork,
    data: CalibrationData,
    layers: Sequence[FakeQuantLayer],
    ranges: InputRanges,
) -> None:
    handles = [layer.register_forward_pre_hook(_watch(layer, ranges)) for layer in layers]
    try:
        fake_quant.predict(data.x, data.timestep, data.condition, data.step)
    finally:
        for handle in handles:
            handle.remove()


def _watch(
    layer: FakeQuantLayer, ranges: InputRanges
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    channel_dim = 1 if layer.spec.kind == "conv2d" else -1

    def observe(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for key, start, width in _parts(layer):
            ranges.update(key, inputs[0].detach().narrow(channel_dim, start, width))

    return observe


def _parts(layer: FakeQuantLayer) -> list[tuple[str, int, int]]:
    """Each part's name, first channel and number of channels."""
    return [
        (
            part_name(layer.spec.name, (part.start, part.stop), len(layer.pieces)),
            part.start,
            part.stop - part.start,
        )
        for part in layer.pieces
    ]


def _table(bits: int, entries: Sequence[tuple[Tensor, Tensor]]) -> ActivationQParams:
    return ActivationQParams(
        bits=bits,
        scale=torch.cat([scale for scale, _ in entries]).cpu(),
        zero_point=torch.cat([zero_point for _, zero_point in entries]).cpu(),
    )
