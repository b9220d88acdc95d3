"""Learning one block: its inputs and targets are recorded, then Adam changes its parameters.

The loss of rounding is the squared error of the block's output plus the regulariser of AdaRound,
that of step sizes the mean |y^ - y|^p; both are summed over channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.learn.adaround import anneal
from tfq_bench.quant.learn.block_data import Captured, Replays, capture_block
from tfq_bench.quant.learn.optimize import optimize, optimizer_for, set_lr
from tfq_bench.quant.lower.precision import tf32

if TYPE_CHECKING:
    from tfq_bench.quant.learn.fake_quant_layer import FakeQuantLayer
    from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
    from tfq_bench.types import CalibrationData

__all__ = ["Phase", "Reconstruction", "learn_block", "step_sizes"]

Phase = Literal["weights", "activations"]

SCORED = 256
"""Samples that a block's error before and after is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """How long and how fast to learn; the defaults are the published ones.

    Args:
        iterations: per block, for rounding; 0 leaves nearest rounding.
        batch: samples per iteration, drawn with replacement.
        lr: of Adam on the rounding variables.
        weight: of the rounding regulariser.
        activation_iterations: per block, for activation step sizes; 0 leaves them.
        activation_lr: of Adam on the logarithms of scales, falling to 0 on a cosine.
        p: exponent of the activation loss |y^ - y|^p.
        memory_limit: bytes for what is recorded; 0 takes half of what is free. Half of it is for
            inputs and targets of the block being learned, beyond it they lie in memory-mapped
            files; half is for outputs of finished blocks, beyond it they are computed again.
            Results do not depend on it.
        capture_batch: samples per network call while they are recorded.
    """

    iterations: int = 20_000
    batch: int = 32
    lr: float = 1e-3
    weight: float = 0.01
    activation_iterations: int = 0
    activation_lr: float = 4e-4
    p: float = 2.4
    memory_limit: int = 0
    capture_batch: int = 64


def learn_block(
    fake_quant: FakeQuantNetwork,
    data: CalibrationData,
    block: str,
    layers: list[FakeQuantLayer],
    phase: Phase,
    options: Reconstruction,
    *,
    limit: int,
    replays: Replays,
    seed: int,
    tell: Callable[[float], None],
) -> tuple[float, float]:
    """Learns `layers` of one block in place; the block's error before and after, both rounded.

    Args:
        limit: bytes of inputs and targets that are kept on the device.
        replays: outputs of blocks before this one; extended.
        seed: of the drawn batches.
        tell: called with the finished fraction.

    Raises:
        CalibrationError: the block is not run by the network.
        QuantizationError: learning diverged.
    """
    tell(0.0)
    module = fake_quant.network.get_submodule(block)
    with (
        tf32(),
        capture_block(
            fake_quant, data, block, limit=limit, batch=options.capture_batch, replays=replays
        ) as captured,
    ):
        before = _error(fake_quant, module, captured, options.batch)
        if phase == "weights":
            parameters = [alpha for layer in layers for alpha in layer.begin_rounding()]
            count, rate = options.iterations, options.lr
        else:
            parameters = [step for layer in layers for step in step_sizes(layer)]
            count, rate = options.activation_iterations, options.activation_lr
        for parameter in parameters:
            parameter.requires_grad_(True)
        _optimise(
            fake_quant,
            module,
            captured,
            layers,
            parameters,
            phase,
            options,
            count,
            rate,
            seed,
            tell,
        )
        for parameter in parameters:
            parameter.requires_grad_(False).grad = None
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
            raise QuantizationError(
                f"learning of block '{block}' diverged ({phase}); expected finite values, found "
                f"NaN or infinity; lower the learning rate ({rate}) or check the calibration data."
            )
        for layer in layers:
            layer.finish_rounding()
        after = _error(fake_quant, module, captured, options.batch)
    return before, after


def _optimise(
    fake_quant: FakeQuantNetwork,
    module: nn.Module,
    captured: Captured,
    layers: list[FakeQuantLayer],
    parameters: list[nn.Parameter],
    phase: Phase,
    options: Reconstruction,
    count: int,
    rate: float,
    seed: int,
    tell: Callable[[float], None],
) -> None:
    device = fake_quant.loaded.device
    sources = (*captured.inputs, captured.targets, captured.steps)
    # What a captured step reads stays in one place; each iteration writes its batch there.
    held = [
        torch.empty((options.batch, *s.shape[1:]), dtype=s.dtype, device=device) for s in sources
    ]
    draws = torch.randint(
        len(captured.targets),
        (count, options.batch),
        generator=torch.Generator().manual_seed(seed),
    ).to(captured.targets.device)
    beta = torch.ones((), device=device)
    weight = torch.zeros((), device=device)
    optimizer = optimizer_for(parameters, rate, device)
    fake_quant.cursor.index = held[-1]

    def before(number: int) -> None:
        for source, buffer in zip(sources, held, strict=True):
            if source.device == buffer.device:
                torch.index_select(source, 0, draws[number].to(source.device), out=buffer)
            else:
                buffer.copy_(source.index_select(0, draws[number].to(source.device)))
        if phase == "activations":
            set_lr(optimizer, rate * 0.5 * (1.0 + math.cos(math.pi * number / count)))
            return
        annealed = anneal(number, count)
        beta.fill_(1.0 if annealed is None else annealed)
        weight.fill_(0.0 if annealed is None else options.weight)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        args, kwargs = captured.arguments(held[:-2])
        error = _output(module(*args, **kwargs)) - held[-2]
        if phase == "weights":
            loss = _per_sample(error.square())
            for layer in layers:
                for part in layer.pieces:
                    assert part.rounding is not None
                    loss = loss + weight * part.rounding.regulariser(beta)
        else:
            loss = _per_sample(error.abs().pow(options.p))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    with torch.enable_grad():
        optimize(step, count, before=before, device=device, tell=tell)


@torch.no_grad()
def _error(
    fake_quant: FakeQuantNetwork, module: nn.Module, captured: Captured, batch: int
) -> float:
    count = len(captured.targets)
    rows = torch.linspace(0, count - 1, min(count, SCORED)).round().long()
    total = 0.0
    for chunk in torch.split(rows, batch):
        index = chunk.to(captured.targets.device)
        device = fake_quant.loaded.device
        fake_quant.cursor.index = captured.steps[chunk.to(captured.steps.device)].to(device)
        args, kwargs = captured.arguments([held[index].to(device) for held in captured.inputs])
        error = _output(module(*args, **kwargs)) - captured.targets[index].to(device)
        total += float(_per_sample(error.square())) * len(chunk)
    return total / len(rows)


def _per_sample(values: Tensor) -> Tensor:
    """Summed over channels, averaged over samples and positions."""
    return values.sum(dim=1 if values.dim() == 4 else -1).mean()


def _output(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def step_sizes(layer: FakeQuantLayer) -> list[nn.Parameter]:
    """What activation learning changes in a layer; empty when its input stays float."""
    return [part.activation.log_ratio for part in layer.pieces if part.activation is not None]
