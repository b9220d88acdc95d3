"""Ways to run one network on a CPU. A contestant is a function in `CONTESTANTS`.

Each is made in a process of its own, from a case that is its own too.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from gpu.states import noise_calls
from torch import Tensor

from cpu.prepared import state_of
from tfq_bench.api import Scheme, StepCursor
from tfq_bench.host.plugins import discover
from tfq_bench.quant import int8_weight, network_parity, simulate

if TYPE_CHECKING:
    from cpu.networks import Case
    from tfq_bench.quant import QuantizedState

__all__ = ["BASELINE", "CONTESTANTS", "EXTERNAL", "Contestant"]

BASELINE = "FP32 eager"
PRODUCTS = ("Convolution", "FullyConnected", "MatMul", "ScaledDotProductAttention")
"""Operations of OpenVINO that multiply."""


class Contestant(NamedTuple):
    """One call of the case's network, and a remark on what runs in it; empty for none."""

    call: Callable[[], Tensor]
    remark: str = ""


def _eager(case: Case) -> Contestant:
    return Contestant(case.call(case.loaded.network))


def _channels_last(case: Case) -> Contestant:
    return Contestant(case.call(*_last(case)))


def _last(case: Case) -> tuple[torch.nn.Module, Tensor]:
    network = torch.nn.Module.to(case.loaded.network, memory_format=torch.channels_last)
    return network, case.x.contiguous(memory_format=torch.channels_last)


def _bf16(case: Case) -> Contestant:
    return Contestant(case.call(*case.half()))


def _compiled(case: Case) -> Contestant:
    return _inductor(case, *_last(case))


def _bf16_compiled(case: Case) -> Contestant:
    return _inductor(case, *case.half())


def _inductor(case: Case, network, x: Tensor, model=None) -> Contestant:
    call = case.call(torch.compile(network, options={"freezing": True}), x, model)
    begin = time.perf_counter()
    call()
    return Contestant(call, f"inductor with freezing, {time.perf_counter() - begin:.0f} s once")


def _openvino_float(precision: str) -> Callable[[Case], Contestant]:
    """The network as OpenVINO converts it: what the engine does without any quantization."""

    def make(case: Case) -> Contestant:
        from tfq_bench_openvino.engine import compile_model
        from tfq_bench_openvino.translate import translate

        if precision != "f32":
            _check_precision(precision)
        model, network = case.loaded.model, case.loaded.network
        condition = model.conditions(range(len(case.x)), device="cpu")
        tensors = [case.x, case.timestep, *condition.values()]

        def call(x: Tensor, t: Tensor, *told: Tensor) -> list[Tensor]:
            return [model.predict(network, x, t, dict(zip(condition, told, strict=True)))]

        made = translate(call, network, StepCursor("cpu"), tensors)
        # Nothing in it reads a step, which therefore is no input.
        inputs = [port.get_any_name() for port in made.inputs]
        sizes = (list(tensor.shape) for tensor in tensors)
        made.reshape(dict(zip(inputs, sizes, strict=True)))
        compiled = compile_model(made, precision)
        found = _products(compiled)
        told = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
        return Contestant(lambda: compiled(tensors)[0], f"products by type: {told}")

    return make


def _check_precision(precision: str) -> None:
    """RuntimeError where the engine takes the hint and executes something else."""
    from tfq_bench_openvino.trials import executed_precision

    found = executed_precision(precision)
    if found != precision:
        raise RuntimeError(f"asked for {precision}, OpenVINO executes {found} on this processor")


def _products(compiled) -> Counter[str]:
    """How many operations that multiply compute in which type, as the executed graph tells."""
    return Counter(
        str(node["runtimePrecision"]) for node in compiled.nodes() if node["layerType"] in PRODUCTS
    )


def _cpu(wbits: int, *, half: bool = False) -> Callable[[Case], Contestant]:
    def make(case: Case) -> Contestant:
        from tfq_bench_cpu.backend import CpuBackend

        if not half:
            return _backend(CpuBackend(), case, wbits)
        network, x, model = case.half()
        loaded = replace(case.loaded, network=network, model=model)
        return _backend(CpuBackend(), replace(case, loaded=loaded, x=x), wbits)

    return make


def _openvino(wbits: int, precision: str = "f32") -> Callable[[Case], Contestant]:
    def make(case: Case) -> Contestant:
        from tfq_bench_openvino.backend import OpenVinoBackend

        if precision != "f32":
            _check_precision(precision)
        return _backend(OpenVinoBackend(precision=precision), case, wbits)

    return make


def _backend(backend, case: Case, wbits: int) -> Contestant:
    state = state_of(case, wbits)
    lowered = backend.lower(case.loaded, state)
    remark = ""
    if case.name == "cifar10":  # simulating the others takes minutes and another copy
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


def _external(name: str, abits: int = 8, **chosen: str) -> Callable[[Case], Contestant]:
    """A contestant of `tfq-bench-peers`, calibrated with the calls that gave states their ranges.

    Args:
        chosen: options that differ from their defaults and change nothing of what is written.
    """

    def make(case: Case) -> Contestant:
        table = discover()
        provider = table.get("quantizer", name)
        options = {option.name: option.default for option in provider.options}
        scheme = Scheme(wbits=8, abits=abits, policy="own")
        tool = table.create(provider, scheme=scheme, **{**options, **chosen})
        tool.check(device="cpu")
        folder = case.folder / f"{name}-a{abits}"
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            tool.quantize(
                case.loaded,
                noise_calls(case.loaded, case.step, len(case.x)),
                generator=torch.Generator().manual_seed(0),
                progress=lambda *_: None,
                folder=unfinished,
            )
            unfinished.rename(folder)
        lowered = tool.load(case.loaded, folder)
        lowered.step.set(case.step)
        floats = sum(use.fallback is not None for use in lowered.kernels)
        told = [
            ", ".join(tool.packages),
            f"{len(lowered.kernels)} of {len(case.loaded.topology.layers)} layers quantized, "
            f"{floats} of them multiply in float",
            *(remark.rstrip(".") for remark in lowered.details["remarks"]),
        ]
        return Contestant(case.call(lowered.network), "; ".join(told))

    return make


def _nncf_bf16(case: Case) -> Contestant:
    _check_precision("bf16")
    return _external("nncf", precision="bf16")(case)


EXTERNAL: dict[str, Callable[[Case], Contestant]] = {
    "OpenVINO+NNCF int8": _external("nncf"),
    "OpenVINO+NNCF int8, rest BF16": _nncf_bf16,
    "torchao int8 dynamic": _external("torchao"),
    "torchao int8 weights": _external("torchao", abits=32),
}
"""Tools that quantize by themselves."""

CONTESTANTS: dict[str, Callable[[Case], Contestant]] = {
    BASELINE: _eager,
    "FP32 eager, channels last": _channels_last,
    "FP32 compiled": _compiled,
    "BF16 eager": _bf16,
    "BF16 compiled": _bf16_compiled,
    "OpenVINO FP32": _openvino_float("f32"),
    "OpenVINO BF16": _openvino_float("bf16"),
    **EXTERNAL,
    "cpu W8A8": _cpu(8),
    "cpu W4A8": _cpu(4),
    "cpu W8A8, rest BF16": _cpu(8, half=True),
    "cpu W4A8, rest BF16": _cpu(4, half=True),
    "openvino W8A8": _openvino(8),
    "openvino W4A8": _openvino(4),
    "openvino W8A8, rest BF16": _openvino(8, "bf16"),
    "openvino W4A8, rest BF16": _openvino(4, "bf16"),
}
"""In the order of the table. What raises is left out with a remark."""
