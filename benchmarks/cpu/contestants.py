"""Ways to run one network on a CPU. A contestant is a function in `CONTESTANTS`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tfq_bench.api import StepCursor
from tfq_bench.quant import int8_weight, network_parity, simulate

if TYPE_CHECKING:
    from benchmarks.cpu.networks import Case
    from tfq_bench.quant import QuantizedState

__all__ = ["BASELINE", "CONTESTANTS", "Contestant"]

BASELINE = "FP32 eager"


class Contestant(NamedTuple):
    """One call of the case's network, and a remark on what runs in it; empty for none."""

    call: Callable[[], Tensor]
    remark: str = ""


def _eager(case: Case) -> Contestant:
    return Contestant(case.call(case.loaded.network))


def _channels_last(case: Case) -> Contestant:
    network = copy.deepcopy(case.loaded.network).to(memory_format=torch.channels_last)
    return Contestant(case.call(network, case.x.contiguous(memory_format=torch.channels_last)))


def _bf16(case: Case) -> Contestant:
    network = copy.deepcopy(case.loaded.network).bfloat16().to(memory_format=torch.channels_last)
    x = case.x.bfloat16().contiguous(memory_format=torch.channels_last)
    return Contestant(case.call(network, x))


def _compiled(case: Case) -> Contestant:
    network = copy.deepcopy(case.loaded.network).to(memory_format=torch.channels_last)
    return _inductor(case, network, case.x)


def _bf16_compiled(case: Case) -> Contestant:
    network = copy.deepcopy(case.loaded.network).bfloat16().to(memory_format=torch.channels_last)
    return _inductor(case, network, case.x.bfloat16())


def _inductor(case: Case, network, x: Tensor) -> Contestant:
    x = x.contiguous(memory_format=torch.channels_last)
    call = case.call(torch.compile(network, options={"freezing": True}), x)
    begin = time.perf_counter()
    call()
    return Contestant(call, f"inductor with freezing, {time.perf_counter() - begin:.0f} s once")


def _openvino_float(case: Case) -> Contestant:
    """The network as OpenVINO converts it: what the engine does without any quantization."""
    from tfq_bench_openvino.engine import compile_model
    from tfq_bench_openvino.translate import translate

    model, network = case.loaded.model, case.loaded.network
    names, tensors = list(case.condition), [case.x, case.timestep, *case.condition.values()]

    def call(x: Tensor, t: Tensor, *told: Tensor) -> list[Tensor]:
        return [model.predict(network, x, t, dict(zip(names, told, strict=True)))]

    made = translate(call, network, StepCursor("cpu"), tensors)
    # Nothing in it reads a step, which therefore is no input.
    inputs = [port.get_any_name() for port in made.inputs]
    sizes = (list(tensor.shape) for tensor in tensors)
    made.reshape(dict(zip(inputs, sizes, strict=True)))
    compiled = compile_model(made)
    return Contestant(lambda: compiled(tensors)[0])


def _cpu(wbits: int) -> Callable[[Case], Contestant]:
    def make(case: Case) -> Contestant:
        from tfq_bench_cpu.backend import CpuBackend

        return _backend(CpuBackend(), case, wbits)

    return make


def _openvino(wbits: int) -> Callable[[Case], Contestant]:
    def make(case: Case) -> Contestant:
        from tfq_bench_openvino.backend import OpenVinoBackend

        return _backend(OpenVinoBackend(), case, wbits)

    return make


def _backend(backend, case: Case, wbits: int) -> Contestant:
    state = case.state(wbits)
    lowered = backend.lower(case.loaded, state)
    remark = ""
    if case.name == "cifar10":  # simulating the other takes minutes and another copy
        parity = network_parity(case.loaded, simulate(case.loaded, state), lowered)
        remark = f"; relative distance to the simulation {parity.relative:.2g}"
    lowered.step.set(case.step)
    lowered.executed.clear()
    call = case.call(lowered.network)
    call()
    fallbacks = sum(use.fallback is not None for use in lowered.kernels)
    return Contestant(
        call,
        f"executed {lowered.executed}, {fallbacks} fallbacks{remark}; sums at most "
        f"{_largest_sum(state):,} (float32 counts to {2**24:,})",
    )


def _largest_sum(state: QuantizedState) -> int:
    """What no sum of a state's layers can exceed, whatever the input: 255 times the weights'."""
    return max(
        255 * int(int8_weight(part).long().abs().flatten(1).sum(1).max())
        for layer in state.layers.values()
        for part in layer.parts
    )


CONTESTANTS: dict[str, Callable[[Case], Contestant]] = {
    BASELINE: _eager,
    "FP32 eager, channels last": _channels_last,
    "FP32 compiled": _compiled,
    "BF16 eager": _bf16,
    "BF16 compiled": _bf16_compiled,
    "OpenVINO FP32": _openvino_float,
    "cpu W8A8": _cpu(8),
    "cpu W4A8": _cpu(4),
    "openvino W8A8": _openvino(8),
    "openvino W4A8": _openvino(4),
}
"""In the order of the table. What raises is left out with a remark, so is what `--skip` names."""
