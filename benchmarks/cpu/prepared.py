"""What all contestants of a network share, on disk: its weights, and its quantized states.

Every contestant lives in a process of its own. The weights are mapped from one file, which lies in
memory once however many processes read it, and of a state each process reads a layer at a time.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu.states import observed_ranges, rounded_state

from cpu.networks import NETWORKS, Case, model_of
from tfq_bench.api import LoadedModel
from tfq_bench.quant.state.storage import load_state, save_state

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedState

__all__ = ["Setup", "load", "prepare", "state_of"]

WIDTHS = (8, 4)
"""Bits of the weights of the states; activations have 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is measured, as every process is told.

    Args:
        size: pixels along a side, 0 for the model's own. batch: images of a call.
        folder: of everything that is prepared for the network at this size.
        cores: that a contestant runs on once it is made; empty for those of its process.
    """

    network: str
    size: int
    batch: int
    threads: int
    folder: Path
    cores: tuple[int, ...] = ()


def prepare(setup: Setup) -> None:
    """Fills the setup's folder, with all cores; nothing is done again that is there.

    Ranges are those of noise at the steps that `gpu.states` looks at, weights rounded to nearest.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    setup.folder.mkdir(parents=True, exist_ok=True)
    file = setup.folder / "network.pt"
    if not file.exists():
        model = model_of(setup.network, setup.size)
        network = model.load(device="cpu", dtype=torch.float32)
        _write(file, (network, model.topology(network)))
        del network
    missing = [wbits for wbits in WIDTHS if not _state_folder(setup, wbits).exists()]
    if not missing:
        return
    loaded = _loaded(setup)
    ranges = observed_ranges(loaded, images=setup.batch)
    for wbits in missing:
        folder = _state_folder(setup, wbits)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        save_state(rounded_state(loaded, ranges, wbits=wbits), unfinished)
        unfinished.rename(folder)


def load(setup: Setup) -> Case:
    """A network that was prepared, its weights mapped from the file."""
    loaded = _loaded(setup)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((setup.batch, *loaded.model.latent_shape), generator=generator)
    return Case(name=setup.network, size=setup.size, loaded=loaded, x=x, folder=setup.folder)


def state_of(case: Case, wbits: int) -> QuantizedState:
    """One of the prepared states, whose layers are read when they are looked at."""
    return load_state(case.folder / f"w{wbits}a8")


def _state_folder(setup: Setup, wbits: int) -> Path:
    return setup.folder / f"w{wbits}a8"


def _loaded(setup: Setup) -> LoadedModel:
    model = model_of(setup.network, setup.size)
    # Whole modules, of a file that `prepare` wrote: drawing SDXL's weights again takes minutes.
    network, topology = torch.load(setup.folder / "network.pt", mmap=True, weights_only=False)
    return LoadedModel(
        model=model,
        network=network,
        topology=topology,
        sampler=model.sampler("ddim", NETWORKS[setup.network].steps),
        device="cpu",
    )


def _write(file: Path, content: Any) -> None:
    unfinished = file.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.rename(file)
