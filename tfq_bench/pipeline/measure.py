"""Latency of one network call: interleaved rounds against the FP32 network in the same process.

Machines are shared and clocks move, so a cell and its reference take turns, and what is published
first is the ratio within one round. Peak memory counts what torch allocated.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._C import _autograd, _profiler

from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.seeds import noise
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    from torch import nn

    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["measure"]


@torch.no_grad()
def measure(
    loaded: LoadedModel, lowered: Lowered, *, batch: int, warmup: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds of each round for the cell and for full precision; the peak memory of a call.

    Returns:
        `{"latency_ms": [...], "reference_latency_ms": [...], "batch", "threads",
        "peak_memory_bytes", "resident_bytes"}`; both lists have `rounds` entries, round `i` of
        one was timed next to round `i` of the other. Without the memory for a contestant, whose
        engine may allocate where torch does not see it.
    """
    model = loaded.model
    x = noise(0, "timing", range(batch), model.latent_shape, device=loaded.device)
    t = timestep_tensor(loaded.sampler.timesteps[0], batch, loaded.device)
    condition = model.conditions(range(batch), device=loaded.device)
    lowered.step.set(0)

    def cell() -> None:
        guided_prediction(model, lowered.network, x, t, condition)

    def reference() -> None:
        guided_prediction(model, loaded.network, x, t, condition)

    for _ in range(warmup):
        cell()
        reference()
    gc.collect()
    mine: list[float] = []
    other: list[float] = []
    for number in range(rounds):
        pair = [(cell, mine), (reference, other)]
        for call, times in pair if number % 2 == 0 else reversed(pair):
            times.append(_milliseconds(call, loaded.device))
    facts: dict[str, Any] = {
        "latency_ms": mine,
        "reference_latency_ms": other,
        "batch": batch,
        "threads": torch.get_num_threads(),
    }
    if lowered.execution != "external":
        resident = _resident_bytes(lowered.network)
        facts["resident_bytes"] = resident
        facts["peak_memory_bytes"] = resident + _peak_bytes(cell, loaded.device)
    return facts


def _milliseconds(call: Callable[[], None], device: str) -> float:
    if device.startswith("cuda"):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) * 1e3


def _resident_bytes(network: nn.Module) -> int:
    """Bytes of parameters and buffers, shared storage counted once."""
    sizes: dict[int, int] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        # Packed (opaque) tensors have no storage to ask; their elements are what they hold.
        pointer = id(tensor) if tensor.is_mkldnn else tensor.data_ptr()
        sizes[pointer] = tensor.numel() * tensor.element_size()
    return sum(sizes.values())


def _peak_bytes(call: Callable[[], None], device: str) -> int:
    """Highest sum of live allocations that one call makes on top of what is there."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    # The newer profiler writes to stderr from C++, whatever its log level.
    _autograd._enable_profiler_legacy(
        _profiler.ProfilerConfig(
            _profiler.ProfilerState.CPU,
            False,  # shapes
            True,  # memory
            False,  # stacks
            False,  # operations
            False,  # modules
            _profiler._ExperimentalConfig(),
        )
    )
    try:
        call()
    finally:
        threads = _autograd._disable_profiler_legacy()
    live = peak = 0
    for event in (event for thread in threads for event in thread):
        live += event.cpu_memory_usage()  # 0 for what neither allocates nor frees
        peak = max(peak, live)
    return peak
