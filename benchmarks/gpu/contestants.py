"""The ways to run a network that are compared, and what is known of each besides its time."""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gpu.networks import Networks, call, middle
from gpu.timing import captured
from tfq_bench.api import Lowered
from tfq_bench.quant import QuantizedState, simulate
from tfq_bench_cuda.backend import CudaBackend

BASELINE = "FP32 eager"
GRAPH = "BF16 CUDA graph"
COMPILED = "BF16 compiled, CUDA graph"
GIVEN_UP_S = 200
"""After so many seconds a compilation that is not ours is given up."""

LEVELS: dict[str, dict[str, Any]] = {
    "layers": {"blocks": False, "graph": False},
    "layers+graph": {"blocks": False, "graph": False},
    "blocks": {"blocks": True, "graph": False},
    "blocks+graph": {"blocks": True, "graph": True},
}
"""Options of the backend `cuda`. `layers+graph` is captured here, `blocks+graph` by the backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to run a network.

    Args:
        notes: what is to be said of it, sentences without subject.
        bytes: of parameters and buffers on the device, None where the network is the baseline's.
    """

    label: str
    run: Callable[[], Tensor]
    notes: list[str] = field(default_factory=list)
    bytes: int | None = None


class GaveUp(BaseException):
    """A compilation took too long. No `Exception`, which a compiler would wrap or swallow."""


def plain(networks: Networks, batch: int) -> Iterator[Contestant]:
    """What torch does without a compiler."""
    full, half = networks.full, networks.half
    sizes = [resident_bytes(loaded.network) for loaded in (full, half)]
    yield Contestant(label=BASELINE, run=call(full, batch), bytes=sizes[0])
    yield Contestant(label="TF32 eager", run=call(full, batch, tf32=True), bytes=sizes[0])
    yield Contestant(label="BF16 eager", run=call(half, batch), bytes=sizes[1])
    yield Contestant(label=GRAPH, run=captured(call(half, batch)), bytes=sizes[1])


def compiled(networks: Networks, batch: int) -> Contestant:
    """`torch.compile` of the BF16 network, its call captured as the others' are."""
    return _compiled(COMPILED, networks, networks.half.network, batch)


def torchao(networks: Networks, batch: int, kind: str) -> Contestant | str:
    """Dynamic quantization of the linear layers by torchao, compiled; or why there is none.

    Args:
        kind: `int8` or `fp8`, a scale for each row of activations and weights.
    """
    label = f"torchao {kind} dynamic, compiled, CUDA graph"
    try:
        from torchao import quantization
    except ImportError as error:
        return f"{label}: torchao cannot be imported ({error})."
    if kind == "int8":
        config = quantization.Int8DynamicActivationInt8WeightConfig()
    else:
        config = quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=quantization.PerRow()
        )
    try:
        network = copy.deepcopy(networks.half.network)
        with given_up_after(GIVEN_UP_S):
            quantization.quantize_(network, config, filter_fn=_large)
            return _compiled(label, networks, network, batch)
    except GaveUp:
        return f"{label}: given up after {GIVEN_UP_S} s."
    except Exception as error:
        return f"{label}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def simulated(networks: Networks, state: QuantizedState, batch: int) -> Contestant:
    """What runs measure quality with: the integers of the state in the float32 network."""
    lowered = simulate(networks.full, state)
    lowered.step.set(middle(networks.full))
    run = call(networks.full, batch, network=lowered.network)
    return Contestant(label=f"simulated W{state.scheme.wbits}A8", run=run)


def cuda(
    networks: Networks,
    state: QuantizedState,
    batch: int,
    level: str,
    *,
    packed: bool = False,
    without: Sequence[str] = (),
    kernels: Any = None,
) -> tuple[Contestant, Lowered]:
    """The backend `cuda` in the BF16 network.

    Args:
        level: of `LEVELS`.
        packed: whether 4-bit weights stay packed on the device.
        without, kernels: as the backend takes them; kernels for tests.
    """
    options = {**LEVELS[level], "weights": "packed" if packed else "int8"}
    loaded = networks.half
    begin = time.perf_counter()
    backend = CudaBackend(batch=batch, without=without, kernels=kernels, **options)
    lowered = backend.lower(loaded, state)
    lowered.step.set(middle(loaded))
    made = time.perf_counter() - begin
    run = call(loaded, batch, network=lowered.network)
    run()
    _wait(loaded.device)
    seconds = time.perf_counter() - begin
    fused = fused_layers(lowered.network, state)
    macs = {name: loaded.topology.layer(name).macs for name in state.layers}
    share = sum(macs[name] for name in fused) / sum(macs.values())
    fallbacks = [use for use in lowered.kernels if use.fallback is not None]
    notes = [
        f"{seconds:.1f} s from `lower` to the end of the first call ({made:.1f} s to lower)",
        f"{share:.1%} of the quantized MACs in fused blocks",
        f"{len(lowered.kernels)} layers, {len(fallbacks)} fall back"
        + "".join(f"; `{use.layer}`: {use.fallback}" for use in fallbacks[:5]),
    ]
    if level == "layers+graph":
        run = captured(run)
    label = f"`cuda` W{state.scheme.wbits}A8{' packed' if packed else ''}, {level}"
    if without:
        label += f", without {' and '.join(without)}"
    size = resident_bytes(lowered.network)
    return Contestant(label=label, run=run, notes=notes, bytes=size), lowered


def fused_layers(network: nn.Module, state: QuantizedState) -> list[str]:
    """Names of the quantized layers that some fused block runs."""
    from tfq_bench_cuda.blocks.fused import FusedBlock

    inside = {
        layer
        for module in network.modules()
        if isinstance(block := module.__dict__.get("forward"), FusedBlock)
        for layer in block.layers
    }
    return [name for name in state.layers if network.get_submodule(name) in inside]


def resident_bytes(network: nn.Module) -> int:
    """Bytes of parameters and buffers, shared storage once."""
    sizes = {}
    for tensor in (*network.parameters(), *network.buffers()):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


@contextmanager
def given_up_after(seconds: int) -> Iterator[None]:
    """Raises `GaveUp` in the main thread when the block takes longer; Linux."""

    def give_up(*_: object) -> None:
        raise GaveUp

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _compiled(label: str, networks: Networks, network: nn.Module, batch: int) -> Contestant:
    torch.compiler.reset()
    begin = time.perf_counter()
    ran = torch.compile(network, dynamic=False)
    run = call(networks.half, batch, network=ran)
    run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    return Contestant(
        label=label,
        run=captured(run),
        notes=[f"compiled in {seconds:.0f} s"],
        bytes=resident_bytes(network),
    )


def _large(module: nn.Module, _: str) -> bool:
    """Linear layers whose sides are multiples of 16, as the products of both kinds need."""
    if not isinstance(module, nn.Linear):
        return False
    return module.in_features % 16 == 0 and module.out_features % 16 == 0


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
