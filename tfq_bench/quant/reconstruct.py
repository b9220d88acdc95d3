"""Block reconstruction: rounding and activation steps are learned block by block (BRECQ).

Blocks go in execution order. A block's input comes from the working network, in which the blocks
before it are quantized already; its target is what the full-precision block makes of the
full-precision input. First every block learns its rounding (AdaRound, activations float); then,
when asked, its activation step sizes (LSQ, everything else quantized).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from tfq_bench.errors import CalibrationError
from tfq_bench.keys import digest
from tfq_bench.quant.adaround import anneal
from tfq_bench.quant.captured import Captured, capture_block
from tfq_bench.quant.checkpoint import BlockFiles
from tfq_bench.quant.descend import descend, optimizer_for, set_lr, tf32
from tfq_bench.quant.outputs import BlockOutputs, tensor_of
from tfq_bench.seeds import derive

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.border import Block, CalibrationData
    from tfq_bench.protocols import Progress
    from tfq_bench.quant.working import WorkingLayer, WorkingNetwork

__all__ = ["BlockReport", "Reconstruction", "reconstruct"]

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
        memory_limit: bytes of a block's inputs and targets that are kept on the device; more lies
            in memory-mapped files.
        capture_batch: samples per network call while they are recorded.
    """

    iterations: int = 20_000
    batch: int = 32
    lr: float = 1e-3
    weight: float = 0.01
    activation_iterations: int = 0
    activation_lr: float = 4e-4
    p: float = 2.4
    memory_limit: int = 8 * 2**30
    capture_batch: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """What learning a block has brought.

    Args:
        before, after: squared error of the block's output, summed over channels and averaged over
            up to 256 samples: with the parameters it started from and with the learned ones, both
            rounded.
        seconds: wall time, the recording of inputs included.
    """

    block: str
    phase: Phase
    before: float
    after: float
    seconds: float


def reconstruct(
    working: WorkingNetwork,
    data: CalibrationData,
    *,
    skip: Collection[str] = (),
    options: Reconstruction,
    generator: torch.Generator,
    progress: Progress,
    checkpoint: Path | None = None,
) -> tuple[BlockReport, ...]:
    """Learns the working network's blocks in place; all weights are hard when it returns.

    Args:
        skip: layers that keep their parameters, because they are learned elsewhere.
        generator: CPU; draws one seed, from which each block has its own.
        checkpoint: folder in which finished blocks are kept. The same call goes on there and gives
            the same result as an undisturbed one; what another call left there is ignored.

    Raises:
        CalibrationError: there are no samples, or a block is not run by the network.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    work = _work(working, skip, options)
    if not work:
        return ()
    if len(data.x) == 0:
        raise CalibrationError(
            "block reconstruction needs calibration data, found no samples; ask for at least one "
            "calibration image."
        )
    files = BlockFiles(checkpoint, identity=_identity(working, data, skip, options, seed))
    outputs = BlockOutputs(working, data, limit=options.memory_limit, batch=options.capture_batch)
    total = sum(cost for _, _, _, cost in work)
    done = 0.0
    reports: list[BlockReport] = []
    for number, (phase, block, names, cost) in enumerate(work):
        if number and phase != work[number - 1][0]:
            outputs.forget()
        working.set(weights="hard", activations="quantized" if phase == "activations" else "float")
        note = files.load(number, working) if len(reports) == number else None
        if note is not None:
            reports.append(BlockReport(**note))
            done += cost
            continue
        text = f"{phase} of block {number + 1}/{len(work)}, {block.name}"
        report = _learn_block(
            working,
            data,
            block.name,
            outputs,
            [working.layer(name) for name in names],
            phase,
            options,
            seed=derive(seed, f"{phase}/{block.name}"),
            tell=lambda share, at=done, size=cost, text=text: progress(  # type: ignore[misc]
                (at + share * size) / total, text
            ),
        )
        done += cost
        reports.append(report)
        files.save(number, working, names, asdict(report))
        progress(done / total, f"{text}: error {report.before:.3g} -> {report.after:.3g}")
    working.set(activations="float")
    return tuple(reports)


def _work(
    working: WorkingNetwork, skip: Collection[str], options: Reconstruction
) -> list[tuple[Phase, Block, list[str], float]]:
    """Phase, block, its trainable layers and expected cost, in the order of work."""
    topology = working.loaded.topology
    macs = {layer.name: layer.macs for layer in topology.layers}
    phases: list[tuple[Phase, int]] = [
        ("weights", options.iterations),
        ("activations", options.activation_iterations),
    ]
    work: list[tuple[Phase, Block, list[str], float]] = []
    for phase, count in phases:
        for block in topology.blocks if count else ():
            names = [
                name
                for name in block.layers
                if name in working.layers
                and name not in skip
                and (phase == "weights" or _steps_of(working.layer(name)))
            ]
            if names:
                cost = float(count) * sum(macs[name] for name in block.layers)
                work.append((phase, block, names, cost))
    return work


def _learn_block(
    working: WorkingNetwork,
    data: CalibrationData,
    block: str,
    outputs: BlockOutputs,
    layers: list[WorkingLayer],
    phase: Phase,
    options: Reconstruction,
    *,
    seed: int,
    tell: Callable[[float], None],
) -> BlockReport:
    begun = time.perf_counter()
    tell(0.0)
    module = working.network.get_submodule(block)
    with (
        tf32(),
        capture_block(
            working,
            data,
            block,
            outputs=outputs,
            limit=options.memory_limit,
            batch=options.capture_batch,
        ) as captured,
    ):
        before = _error(working, module, captured, options.batch)
        if phase == "weights":
            parameters = [alpha for layer in layers for alpha in layer.soften()]
            count, rate = options.iterations, options.lr
        else:
            parameters = [step for layer in layers for step in _steps_of(layer)]
            count, rate = options.activation_iterations, options.activation_lr
        for parameter in parameters:
            parameter.requires_grad_(True)
        _optimise(
            working, module, captured, layers, parameters, phase, options, count, rate, seed, tell
        )
        for parameter in parameters:
            parameter.requires_grad_(False).grad = None
        for layer in layers:
            layer.harden()
        after = _error(working, module, captured, options.batch)
        outputs.remember(block, lambda rows: _answer(working, module, captured, rows))
    return BlockReport(
        block=block,
        phase=phase,
        before=before,
        after=after,
        seconds=time.perf_counter() - begun,
    )


def _optimise(
    working: WorkingNetwork,
    module: nn.Module,
    captured: Captured,
    layers: list[WorkingLayer],
    parameters: list[nn.Parameter],
    phase: Phase,
    options: Reconstruction,
    count: int,
    rate: float,
    seed: int,
    tell: Callable[[float], None],
) -> None:
    device = working.loaded.device
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
    working.cursor.index = held[-1]

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
        error = tensor_of(module(*args, **kwargs)) - held[-2]
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
        descend(step, count, before=before, device=device, tell=tell)


def _answer(working: WorkingNetwork, module: nn.Module, captured: Captured, rows: Any) -> Tensor:
    """The block's output for the captured samples `rows` (a slice or an index)."""
    device = working.loaded.device
    working.cursor.index = captured.steps[rows].to(device)
    args, kwargs = captured.arguments([held[rows].to(device) for held in captured.inputs])
    return tensor_of(module(*args, **kwargs))


@torch.no_grad()
def _error(working: WorkingNetwork, module: nn.Module, captured: Captured, batch: int) -> float:
    count = len(captured.targets)
    rows = torch.linspace(0, count - 1, min(count, SCORED)).round().long()
    total = 0.0
    for chunk in torch.split(rows, batch):
        answer = _answer(working, module, captured, chunk)
        error = answer - captured.targets[chunk].to(answer.device)
        total += float(_per_sample(error.square())) * len(chunk)
    return total / len(rows)


def _per_sample(values: Tensor) -> Tensor:
    """Summed over channels, averaged over samples and positions."""
    return values.sum(dim=1 if values.dim() == 4 else -1).mean()


def _steps_of(layer: WorkingLayer) -> list[nn.Parameter]:
    return [part.activation.log_scale for part in layer.pieces if part.activation is not None]


def _identity(
    working: WorkingNetwork,
    data: CalibrationData,
    skip: Collection[str],
    options: Reconstruction,
    seed: int,
) -> str:
    """Digest of what the result depends on: data and start by their sums, to the bit."""
    state = [
        [name, part.start, float(part.scale.double().sum()), int(part.codes.long().sum())]
        for name, layer in working.layers.items()
        for part in layer.pieces
    ]
    tables = [
        float(step.detach().double().sum())
        for layer in working.layers.values()
        for step in _steps_of(layer)
    ]
    return digest(
        {
            "model": working.loaded.model.digest,
            "data": [len(data.x), float(data.x.double().sum()), data.step.tolist()],
            "start": state,
            "tables": tables,
            "skip": sorted(skip),
            "options": asdict(options),
            "seed": seed,
        }
    )
