"""Time projections behind a condition, whose input is no function of the timestep alone.

    emb[t, c, i] = Linear_i(act(h_i(t) + e_i(c)))

A condition c is added to the time MLP's output before the activation: text and sizes in SDXL, the
class in DiT and in class-conditional U-Nets. What can be tabulated for all requests ends with h_i.
Still no image enters: so these weights are learned like those of the temporal block, apart from the
blocks that hold them, on a table with one row per (timestep, condition) of the calibration data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench.api import CalibrationError, QuantizationError
from tfq_bench.quant import find_layer
from tfq_bench_tfmq.block import TemporalBlock
from tfq_bench_tfmq.find_block import nearly_equal
from tfq_bench_tfmq.tiar import TiarReport, learn_rounding

if TYPE_CHECKING:
    from tfq_bench.api import CalibrationData, LoadedModel, Progress, Topology
    from tfq_bench.quant import FakeQuantNetwork

__all__ = ["behind_condition", "check_inputs", "learn_projections"]

ROWS = 2048
"""Rows of the table at most: more than the widest input has channels, so that rounding is not
learned for the rows alone."""

BATCH = 16
"""Samples per network call while inputs are recorded."""


def behind_condition(topology: Topology) -> tuple[str, ...]:
    """The time projections whose output is not a time feature, in execution order."""
    features = set(topology.time_features)
    return tuple(name for name in topology.time_projections if name not in features)


@torch.no_grad()
def check_inputs(loaded: LoadedModel, names: Sequence[str]) -> None:
    """Nothing, when what the projections `names` read does not depend on the image.

    The network is called for two states under one timestep and one condition.

    Raises:
        QuantizationError: a projection is not linear, does not run on one row per image, or reads
            something that the image has entered.
    """
    if not names:
        return
    for name in names:
        if not isinstance(module := find_layer(loaded.network, name), nn.Linear):
            raise QuantizationError(
                f"time projection '{name}' must be Linear, found {type(module).__name__}."
            )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, *loaded.model.latent_shape), generator=generator).to(loaded.device)
    timestep = torch.tensor([loaded.sampler.timesteps[0]] * 2, device=loaded.device)
    condition = loaded.model.conditions([0, 0], device=loaded.device)
    seen = _watch(
        loaded.network,
        names,
        lambda: loaded.model.predict(loaded.network, x, timestep, condition),
    )
    for name, rows in seen.items():
        if not nearly_equal(rows[:1], rows[1:]):
            raise QuantizationError(
                f"the input of time projection '{name}' differs between two images at one timestep "
                "and under one condition, so the image has entered before it. tfmq treats time "
                "projections as functions of timestep and condition; give the layer another role "
                "in the model's topology, or choose a method without a temporal block."
            )


@torch.no_grad()
def learn_projections(
    fake_quant: FakeQuantNetwork,
    data: CalibrationData,
    names: Sequence[str],
    *,
    iterations: int,
    lr: float,
    generator: torch.Generator,
    progress: Progress,
) -> TiarReport:
    """Learns the rounding of the projections `names` in place, towards full-precision outputs.

    They read what the fake-quantized network gives them, with whatever it puts in place of the time
    features and else full-precision weights, and are compared with the full-precision network.

    Args:
        names: quantized layers that have passed `check_inputs`.
        iterations, lr: as in `tiar.learn_rounding`; 0 iterations leave nearest rounding and need
            no data.
        generator: CPU; draws rows where there are more than `ROWS` samples.

    Returns:
        Losses summed over the projections.

    Raises:
        CalibrationError: there are no samples.
    """
    if not names or iterations == 0:
        return TiarReport(before=0.0, after=0.0)
    if len(data.x) == 0:
        raise CalibrationError(
            "projections behind a condition are learned on calibration data, found no samples; ask "
            "for at least one calibration image, or set tiar_iterations = 0."
        )
    # Drawn rather than every n-th: rows alternate between the branches of guidance.
    rows = torch.randperm(len(data.x), generator=generator)[:ROWS].sort().values
    rows = rows.to(data.x.device)
    loaded = fake_quant.loaded
    exact = _record(
        loaded.network,
        data,
        rows,
        names,
        lambda x, t, condition, _: loaded.model.predict(loaded.network, x, t, condition),
    )
    fake_quant.set(weights="float", activations="float")
    found = _record(fake_quant.network, data, rows, names, fake_quant.predict)
    fake_quant.set(weights="hard")
    groups = _groups(names, exact, found)
    before = after = 0.0
    for number, group in enumerate(groups):

        def tell(share: float, text: str, number: int = number) -> None:
            progress((number + share) / len(groups), text)

        report = learn_rounding(
            _as_block(loaded, group, exact[group[0]]),
            fake_quant,
            inputs=found[group[0]],
            iterations=iterations,
            lr=lr,
            progress=tell,
        )
        before, after = before + report.before, after + report.after
    return TiarReport(before=before, after=after)


_Predict = Callable[[Tensor, Tensor, dict[str, Tensor], Tensor], Tensor]


def _record(
    network: nn.Module,
    data: CalibrationData,
    rows: Tensor,
    names: Sequence[str],
    predict: _Predict,
) -> dict[str, Tensor]:
    """What the layers `names` of `network` read for samples `rows`, float32 `[R, C]` by name."""
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for chosen in torch.split(rows, BATCH):
        condition = {name: value[chosen] for name, value in data.condition.items()}
        call = partial(predict, data.x[chosen], data.timestep[chosen], condition, data.step[chosen])
        seen = _watch(network, names, call)
        for name, part in seen.items():
            parts[name].append(part)
    return {name: torch.cat(held) for name, held in parts.items()}


def _watch(
    network: nn.Module, names: Sequence[str], call: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """Inputs `[B, C]` of the layers `names` during one call."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen[name].append(inputs[0].detach().float())

    handles = [network.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names]
    try:
        batch = len(call())
    finally:
        for handle in handles:
            handle.remove()
    for name, inputs in seen.items():
        shapes = [tuple(one.shape) for one in inputs]
        if len(inputs) != 1 or inputs[0].dim() != 2 or len(inputs[0]) != batch:
            raise QuantizationError(
                f"time projection '{name}' must run once per call on one row per image, found "
                f"inputs of shapes {shapes} for {batch} images."
            )
    return {name: inputs[0] for name, inputs in seen.items()}


def _groups(
    names: Sequence[str], exact: dict[str, Tensor], found: dict[str, Tensor]
) -> list[list[str]]:
    """Projections that read one input together; in a U-Net these are all of them."""
    groups: list[list[str]] = []
    for name in names:
        for group in groups:
            if torch.equal(exact[name], exact[group[0]]) and torch.equal(
                found[name], found[group[0]]
            ):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _as_block(loaded: LoadedModel, names: Sequence[str], table: Tensor) -> TemporalBlock:
    """Projections of one input as a block of their own, with a row per sample."""
    modules = {name: find_layer(loaded.network, name) for name in names}
    return TemporalBlock(
        layers=tuple(names),
        outputs=tuple(names),
        reads=dict.fromkeys(names),
        before=dict.fromkeys(names, "nothing"),
        table=table,
        weights={name: module.weight.detach().float() for name, module in modules.items()},
        biases={
            name: None if module.bias is None else module.bias.detach().float()
            for name, module in modules.items()
        },
    )
