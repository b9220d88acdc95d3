"""Block reconstruction: rounding and activation steps are learned block by block (BRECQ).

Blocks go in execution order. A block's input comes from the fake-quantized network, in which the
blocks before it are quantized already; its target is what the full-precision block makes of the
full-precision input. First every block learns its rounding (AdaRound, activations float); then,
when asked, its activation step sizes (LSQ, everything else quantized).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import CalibrationError
from tfq_bench.quant.learn.activation_cache import Replay
from tfq_bench.quant.learn.block import Phase, Reconstruction, learn_block, step_sizes
from tfq_bench.quant.learn.block_data import Replays
from tfq_bench.quant.learn.checkpoint import BlockFiles, identity
from tfq_bench.quant.learn.progress import ProgressEstimator
from tfq_bench.seeds import derive

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
    from tfq_bench.types import Block, CalibrationData
    from tfq_bench.types.tasks import Progress

__all__ = ["BlockReport", "reconstruct"]

LEAST_SHARE = 0.02
"""What a block costs at least, as a share of the network: small ones wait for memory and launches.
Only progress and the time left rest on it."""

UNKNOWN_MEMORY = 4 * 2**30
"""Taken for free where the system does not tell."""


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
    fake_quant: FakeQuantNetwork,
    data: CalibrationData,
    *,
    skip: Collection[str] = (),
    options: Reconstruction,
    generator: torch.Generator,
    progress: Progress,
    checkpoint: Path | None = None,
) -> tuple[BlockReport, ...]:
    """Learns the fake-quantized network's blocks in place; all weights are hard when it returns.

    Args:
        skip: layers that keep their parameters, because they are learned elsewhere.
        generator: CPU; draws one seed, from which each block has its own.
        checkpoint: folder in which finished blocks are kept. The same call goes on there and gives
            the same result as an undisturbed one; what another call left there is ignored.

    Raises:
        CalibrationError: there are no samples, or a block is not run by the network.
        QuantizationError: learning diverged.
        StoreError: the checkpoint cannot be written.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    work = _work(fake_quant, skip, options)
    if not work:
        return ()
    if len(data.x) == 0:
        raise CalibrationError(
            "block reconstruction needs calibration data, found no samples; ask for at least one "
            "calibration image."
        )
    settings = asdict(options)
    del settings["memory_limit"]  # a run may go on where less memory is free
    files = BlockFiles(
        checkpoint,
        identity=identity(
            fake_quant, data, {"skip": sorted(skip), "seed": seed, "options": settings}
        ),
    )
    limit = options.memory_limit or _free_bytes(fake_quant.loaded.device) // 2
    replays = _replays(fake_quant, len(data.x), limit // 4)
    pace = ProgressEstimator(sum(cost for _, _, _, cost in work))
    reports: list[BlockReport] = []
    before: Phase = "weights"
    for number, (phase, block, names, cost) in enumerate(work):
        fake_quant.set(
            weights="hard", activations="quantized" if phase == "activations" else "float"
        )
        if phase != before:
            replays.fake_quant.forget()
            before = phase
        text = f"block {number + 1}/{len(work)} {block.name} ({phase})"
        note = files.load(number, fake_quant)
        if note is not None:
            reports.append(BlockReport(**note))
            pace.skip(cost)
            progress(pace.share(), f"{text}, as kept in the checkpoint")
            continue

        def tell(share: float, text: str = text, cost: float = cost) -> None:
            progress(pace.share(share * cost), f"{text}, {pace.left(share * cost)}")

        begun = time.perf_counter()
        error = learn_block(
            fake_quant,
            data,
            block.name,
            [fake_quant.layer(name) for name in names],
            phase,
            options,
            limit=limit // 2,
            replays=replays,
            seed=derive(seed, f"{phase}/{block.name}"),
            tell=tell,
        )
        report = BlockReport(
            block=block.name,
            phase=phase,
            before=error[0],
            after=error[1],
            seconds=time.perf_counter() - begun,
        )
        files.save(number, fake_quant, names, asdict(report))
        reports.append(report)
        pace.advance(cost)
        loss = f"loss {report.before:.3g} -> {report.after:.3g}"
        progress(pace.share(), f"{text}, {loss}, {pace.left()}")
    fake_quant.set(activations="float")
    return tuple(reports)


def _replays(fake_quant: FakeQuantNetwork, count: int, limit: int) -> Replays:
    loaded = fake_quant.loaded
    names = [block.name for block in loaded.topology.blocks]
    return Replays(
        fake_quant=Replay(fake_quant.network, names, count=count, limit=limit),
        full=Replay(loaded.network, names, count=count, limit=limit),
    )


def _free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY


def _work(
    fake_quant: FakeQuantNetwork, skip: Collection[str], options: Reconstruction
) -> list[tuple[Phase, Block, list[str], float]]:
    """Phase, block, its trainable layers and expected cost, in the order of work."""
    topology = fake_quant.loaded.topology
    macs = {layer.name: layer.macs for layer in topology.layers}
    least = LEAST_SHARE * sum(macs.values())
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
                if name in fake_quant.layers
                and name not in skip
                and (phase == "weights" or step_sizes(fake_quant.layer(name)))
            ]
            if names:
                cost = count * max(least, float(sum(macs[name] for name in block.layers)))
                work.append((phase, block, names, cost))
    return work
