"""The backend: which layers run on bytes, which do not and why, and the model made of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tfq_bench.api import (
    KernelUse,
    LoadedModel,
    Lowered,
    LoweringError,
    StepCursor,
    timestep_tensor,
)
from tfq_bench.quant import (
    SIMULATED_KERNEL,
    SimulatedLayer,
    WeightedLayer,
    check_state,
    copy_network,
    find_layer,
    finish_lowering,
    guided_prediction,
    int8_refusal,
    replace_layer,
)
from tfq_bench_openvino.layers import Int8Layer
from tfq_bench_openvino.machine import check_machine
from tfq_bench_openvino.network import FLOAT, CompiledNetwork
from tfq_bench_openvino.operands import Operands
from tfq_bench_openvino.runtime import openvino
from tfq_bench_openvino.trials import saturates

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedState

__all__ = ["OpenVinoBackend"]

_log = logging.getLogger("tfq_bench.openvino")


class OpenVinoBackend:
    """The whole network as one OpenVINO model, its quantized layers in int8.

    Args:
        precision: `f32` or `bf16`, of all that is no int8 product.
    """

    def __init__(self, *, precision: str = "f32") -> None:
        self._precision = precision

    def check(self, *, device: str) -> None:
        """LoweringError when this machine has no exact int8 products; see `check_machine`."""
        check_machine(device, precision=self._precision)

    def exactness(self, *, device: str) -> str:  # noqa: ARG002  (`check` refuses any but one)
        """What the worst sums of int8 products came to here; see `trials`."""
        if saturates():
            return (
                "int8 sums exact, 8-bit weights in two products, since pairs of them saturate here"
            )
        return "int8 sums exact, every width in one product"

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """A network of its own that calls one compiled model.

        Layers that cannot run on bytes are simulated in float32, inside of the model too, and
        listed with the reason; so is a layer for which the engine chose a float kernel. Time
        projections that the state caches are looked up, as in the simulation.

        Raises:
            LoweringError: the machine lacks exact products, the network is not in float32 or
                cannot be translated, or the state was made for another model or sampler.
            QuantizationError: the state has a layer that the network lacks.
        """
        self.check(device=loaded.device)
        check_state(loaded, state)
        _check_float32(loaded.network)
        network = copy_network(loaded.network, state.layers)
        step = StepCursor(loaded.device)
        executed: dict[str, int] = {}
        reasons: dict[str, str] = {}
        kernels: dict[str, str] = {}
        for name, layer in state.layers.items():
            original = find_layer(network, name)
            reason = int8_refusal(layer) or _geometry_reason(original)
            module: nn.Module
            if reason is not None:
                module = SimulatedLayer(layer, original, step, executed)
                reasons[name], kernels[name] = reason, SIMULATED_KERNEL
            else:
                steps = len(state.timesteps)
                operands = Operands.of(layer, original, steps=steps, saturates=saturates())
                module = Int8Layer(operands, step, executed)
                kernels[name] = module.kernel
            replace_layer(network, name, module)
        others = finish_lowering(network, loaded, state, step, executed)
        compiled = CompiledNetwork(network, step, executed, precision=self._precision)
        compiled.install()
        _rehearse(loaded, network)
        executed.clear()
        for name, primitive in compiled.floats().items():
            reasons[name], kernels[name] = f"OpenVINO runs it as {primitive}", FLOAT
        for name, reason in reasons.items():
            _log.warning("layer '%s' falls back to float32: %s", name, reason)
        uses = [
            KernelUse(
                layer=name,
                kernel=kernels[name],
                wbits=layer.wbits,
                abits=layer.abits,
                macs=loaded.topology.layer(name).macs,
                fallback=reasons.get(name),
            )
            for name, layer in state.layers.items()
        ]
        return Lowered(
            network=network,
            step=step,
            execution="lowered",
            kernels=(*uses, *others),
            executed=executed,
            details=_Details(compiled),
        )


def _check_float32(network: nn.Module) -> None:
    types = {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}
    if types:
        found = str(types.pop()).removeprefix("torch.")
        raise LoweringError(
            f"backend 'openvino' takes networks in float32, found {found}; load the model in "
            "float32 or choose another backend."
        )


def _geometry_reason(original: WeightedLayer) -> str | None:
    """Why the layer that is replaced cannot run on bytes, None when it can."""
    if isinstance(original, nn.Linear):
        return None
    if isinstance(original.padding, str):
        return f"padding '{original.padding}' instead of numbers"
    if original.padding_mode != "zeros":
        return f"padding mode '{original.padding_mode}'"
    if original.groups > 1:
        return "a grouped convolution"
    return None


def _rehearse(loaded: LoadedModel, network: nn.Module) -> None:
    """One call of two images, which makes the model and tells what the engine runs."""
    model, device = loaded.model, loaded.device
    x = torch.zeros((2, *model.latent_shape), device=device)
    t = timestep_tensor(loaded.sampler.timesteps[0], 2, device)
    with torch.no_grad():
        guided_prediction(model, network, x, t, model.conditions(range(2), device=device))


class _Details(Mapping[str, Any]):
    """What the compiled network tells of itself when it is read: the model compiled last."""

    def __init__(self, compiled: CompiledNetwork) -> None:
        self._compiled = compiled

    def _now(self) -> dict[str, Any]:
        execution = self._compiled.execution
        return {
            "openvino": openvino.__version__,
            "saturates": saturates(),
            "seconds": dict(self._compiled.seconds),
            **({} if execution is None else execution.to_json()),
        }

    def __getitem__(self, key: str) -> Any:
        return self._now()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())
