"""The backend: which layers get a kernel, which do not and why, and the network made of them."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from torch import nn

from tfq_bench.api import KernelUse, LoadedModel, Lowered, LoweringError, StepCursor
from tfq_bench.quant import (
    SIMULATED_KERNEL,
    SimulatedLayer,
    WeightedLayer,
    check_state,
    copy_network,
    find_layer,
    finish_lowering,
    int8_refusal,
    replace_layer,
)
from tfq_bench_cpu.layers import Int8Conv2d, Int8Linear
from tfq_bench_cpu.machine import check_machine
from tfq_bench_cpu.onednn import Geometry
from tfq_bench_cpu.trials import saturates

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedLayer, QuantizedState

__all__ = ["CpuBackend"]

_log = logging.getLogger("tfq_bench.cpu")


class CpuBackend:
    """int8 convolutions and linear layers through torch's oneDNN operators."""

    def check(self, *, device: str) -> None:
        """LoweringError when this machine has no exact int8 kernels; see `check_machine`."""
        check_machine(device)

    def exactness(self, *, device: str) -> str:  # noqa: ARG002  (`check` refuses any but one)
        """What the worst sums of int8 products came to here; see `trials`."""
        if saturates():
            return (
                "int8 sums exact, 8-bit weights in up to two products, since pairs of them "
                "saturate here"
            )
        return "int8 sums exact, every width in one product"

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """A network of its own whose quantized layers run int8 kernels where there are any.

        Layers without a kernel are simulated in float32 and listed with the reason. Time
        projections that the state caches are looked up, as in the simulation.

        Raises:
            LoweringError: the machine lacks the kernels, or the state was made for another model
                or sampler.
            QuantizationError: the state has a layer that the network lacks.
        """
        self.check(device=loaded.device)
        check_state(loaded, state)
        network = copy_network(loaded.network, state.layers)
        step = StepCursor(loaded.device)
        executed: dict[str, int] = {}
        uses: list[KernelUse] = []
        products: Counter[str] = Counter()
        for name, layer in state.layers.items():
            original = find_layer(network, name)
            macs = loaded.topology.layer(name).macs
            outputs = macs // original.weight.numel()
            reason = int8_refusal(layer) or _geometry_reason(layer, original)
            module: Int8Conv2d | Int8Linear | None = None
            if reason is None:
                try:
                    if isinstance(original, nn.Conv2d):
                        geometry = _geometry(original)
                        module = Int8Conv2d(layer, geometry, step, executed, outputs)
                    else:
                        module = Int8Linear(layer, step, executed, outputs)
                except LoweringError as error:
                    reason = str(error)
            if module is None:
                _log.warning("layer '%s' falls back to float32: %s", name, reason)
                replace_layer(network, name, SimulatedLayer(layer, original, step, executed))
            else:
                replace_layer(network, name, module)
                products.update(module.products())
            uses.append(
                KernelUse(
                    layer=name,
                    kernel=SIMULATED_KERNEL if module is None else module.kernel,
                    wbits=layer.wbits,
                    abits=layer.abits,
                    macs=macs,
                    fallback=reason,
                )
            )
        uses.extend(finish_lowering(network, loaded, state, step, executed))
        return Lowered(
            network=network,
            step=step,
            execution="lowered",
            kernels=tuple(uses),
            executed=executed,
            details={"products by form and what the kernel does with its sums": dict(products)},
        )


def _geometry_reason(layer: QuantizedLayer, original: WeightedLayer) -> str | None:
    """Why the layer that is replaced cannot be a kernel, None when it can."""
    if isinstance(original, nn.Linear):
        return None
    if isinstance(original.padding, str):
        return f"padding '{original.padding}' instead of numbers"
    if original.padding_mode != "zeros":
        return f"padding mode '{original.padding_mode}'"
    if original.groups > 1 and len(layer.parts) > 1:
        return "a grouped convolution whose input is split"
    return None


def _geometry(conv: nn.Conv2d) -> Geometry:
    """The geometry of a convolution that `_geometry_reason` accepts."""
    assert not isinstance(conv.padding, str)
    return Geometry(
        stride=(conv.stride[0], conv.stride[1]),
        padding=(conv.padding[0], conv.padding[1]),
        dilation=(conv.dilation[0], conv.dilation[1]),
        groups=conv.groups,
    )
