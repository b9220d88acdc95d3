"""Activation parameters outside of the temporal block, from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import FULL_PRECISION, CalibrationError
from tfq_bench.quant import ActivationTable, InputRanges, affine_from_range

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.api import CalibrationData, Progress
    from tfq_bench.quant.observe import RangeMethod
    from tfq_bench.quant.working import WorkingNetwork

__all__ = ["calibrate_others"]

BATCH = 16
"""Samples per network call; fixed, because the moving average depends on it."""

MOMENTUM = 0.95
"""Of the moving average; the released code's."""


@torch.no_grad()
def calibrate_others(
    working: WorkingNetwork,
    data: CalibrationData,
    *,
    skip: Collection[str],
    method: RangeMethod,
    per_step: Collection[str],
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Gives each quantized layer, except `skip`, an activation table, in place.

    Inputs are observed in the working network with its learned weights and float activations.

    Args:
        per_step: layers that get a range for every sampler step, from that step's samples; the
            others get one range, from all samples in random order, because a moving average
            forgets.
        generator: CPU.

    Raises:
        CalibrationError: no samples, no sample of a step, or inputs that are not finite.
    """
    bits = {
        name: layer.bits.abits
        for name, layer in working.layers.items()
        if layer.bits.abits != FULL_PRECISION and name not in skip
    }
    if not bits:
        return
    working.set(weights="hard", activations="float")
    steps = len(working.loaded.sampler.timesteps)
    together = [torch.randperm(len(data.x), generator=generator).to(data.x.device)]
    apart = [torch.nonzero(data.step == step).flatten() for step in range(steps)]
    entries: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in bits}
    for groups, names in (
        (together, [name for name in bits if name not in per_step]),
        (apart, [name for name in bits if name in per_step]),
    ):
        if not names:
            continue
        for number, rows in enumerate(groups):
            if len(rows) == 0:
                where = f" of sampler step {number}" if groups is apart else ""
                raise CalibrationError(
                    f"activation ranges need calibration data, found no samples{where}; ask for at "
                    "least one calibration image."
                )
            batches = torch.split(rows, BATCH)
            ranges = InputRanges(
                method, batches=len(batches), generator=generator, momentum=MOMENTUM
            )
            for count, batch in enumerate(batches, start=1):
                _observe(working, data, batch, names, ranges.update)
                done = (number + count / len(batches)) / len(groups)
                progress(done, "observing inputs")
            for name in names:
                entries[name].append(affine_from_range(*ranges.range(name, bits[name]), bits[name]))
    for name, pairs in entries.items():
        table = ActivationTable(
            bits=bits[name],
            scale=torch.cat([scale for scale, _ in pairs]).cpu(),
            zero_point=torch.cat([zero_point for _, zero_point in pairs]).cpu(),
        )
        layer = working.layer(name)
        layer.set_tables([table] * len(layer.pieces))


def _observe(
    working: WorkingNetwork,
    data: CalibrationData,
    rows: Tensor,
    names: Collection[str],
    observe: Callable[[str, Tensor], None],
) -> None:
    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: observe(name, inputs[0].detach())

    handles = [working.layer(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        working.predict(
            data.x[rows],
            data.timestep[rows],
            {name: value[rows] for name, value in data.condition.items()},
            data.step[rows],
        )
    finally:
        for handle in handles:
            handle.remove()
