"""A quantized state in float arithmetic: the same integers as the kernels, on any device.

Each layer's input is quantized and dequantized, its weight is dequantized once, and the layer
then runs in float32. Padding with zeros is exact, because 0 has a code (the zero point).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench.errors import LoweringError
from tfq_bench.protocols import KernelUse, Lowered, StepCursor
from tfq_bench.quant.affine import fake_quantize
from tfq_bench.quant.layers import WeightedLayer, apply_layer, find_layer, replace_layer

if TYPE_CHECKING:
    from tfq_bench.protocols import LoadedModel
    from tfq_bench.quant.state import QuantizedLayer, QuantizedState

__all__ = ["KERNEL", "SimulateBackend", "SimulatedLayer", "check_state", "simulate"]

KERNEL = "fp32 on dequantized integers"


class SimulatedLayer(nn.Module):
    """A layer that computes in float32 on dequantized integers.

    The parts of a split layer are quantized apart and joined before one product with the joined
    weight; this equals the sum over the parts' products.

    Args:
        original: the layer it stands for; gives stride, padding, dilation, groups and device.
        step: where per-step tables are read, see `StepCursor`.
        executed: its entry `KERNEL` is incremented at each call, when given.

    Raises:
        LoweringError: `layer` does not fit `original`.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        layer: QuantizedLayer,
        original: WeightedLayer,
        step: StepCursor,
        executed: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        device = original.weight.device
        weight = layer.dequantized_weight()
        if weight.shape != original.weight.shape:
            raise LoweringError(
                f"layer '{layer.name}': the network's weight has shape "
                f"{tuple(original.weight.shape)}, the state's {tuple(weight.shape)}."
            )
        if len(layer.parts) > 1 and getattr(original, "groups", 1) != 1:
            raise LoweringError(f"layer '{layer.name}': a grouped convolution cannot be split.")
        self.register_buffer("weight", weight.to(device))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.float().to(device))
        self._bits: list[int | None] = []
        for number, part in enumerate(layer.parts):
            table = part.activation
            self._bits.append(None if table is None else table.bits)
            if table is not None:
                self.register_buffer(f"scale_{number}", table.scale.to(device))
                self.register_buffer(f"zero_point_{number}", table.zero_point.to(device))
        self._widths = [part.stop - part.start for part in layer.parts]
        # In a tuple, so that the full-precision weight is no parameter of this module.
        self._geometry = (_without_weight(original),)
        self._channel_dim = 1 if layer.kind == "conv2d" else -1
        self._step = step
        self._executed = executed

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for x; computed in float32, returned in x's dtype."""
        if self._executed is not None:
            self._executed[KERNEL] = self._executed.get(KERNEL, 0) + 1
        if len(self._bits) == 1:
            y = self._quantize(x, 0)
        else:
            pieces = torch.split(x, self._widths, dim=self._channel_dim)
            y = torch.cat(
                [self._quantize(piece, number) for number, piece in enumerate(pieces)],
                dim=self._channel_dim,
            )
        return apply_layer(self._geometry[0], y, self.weight, self.bias).to(x.dtype)

    def _quantize(self, x: Tensor, number: int) -> Tensor:
        bits = self._bits[number]
        if bits is None:
            return x.float()
        scale: Tensor = getattr(self, f"scale_{number}")
        zero_point: Tensor = getattr(self, f"zero_point_{number}")
        if scale.numel() > 1:
            scale = scale.index_select(0, self._step.index)
            zero_point = zero_point.index_select(0, self._step.index)
        return fake_quantize(x, scale, zero_point, bits)


def simulate(loaded: LoadedModel, state: QuantizedState | None) -> Lowered:
    """The network with every layer of `state` simulated; None gives a full-precision copy.

    `loaded.network` stays as it is.

    Raises:
        LoweringError: the state was made from another model, or for other timesteps.
        QuantizationError: the state has a layer that the network lacks.
    """
    network = copy.deepcopy(loaded.network)
    step = StepCursor(loaded.device)
    if state is None:
        return Lowered(network=network, step=step, execution="full-precision")
    check_state(loaded, state)
    executed: dict[str, int] = {}
    uses = []
    for name, layer in state.layers.items():
        original = find_layer(network, name)
        replace_layer(network, name, SimulatedLayer(layer, original, step, executed))
        uses.append(
            KernelUse(
                layer=name,
                kernel=KERNEL,
                wbits=layer.wbits,
                abits=layer.abits,
                macs=loaded.topology.layer(name).macs,
            )
        )
    return Lowered(
        network=network, step=step, execution="simulated", kernels=tuple(uses), executed=executed
    )


def check_state(loaded: LoadedModel, state: QuantizedState) -> None:
    """Nothing, when `state` was made for this model and sampler.

    Raises:
        LoweringError: says what differs.
    """
    if state.model != loaded.model.digest:
        raise LoweringError(
            f"the state was made from model {state.model}, the model is {loaded.model.digest}."
        )
    if tuple(state.timesteps) != tuple(loaded.sampler.timesteps):
        raise LoweringError(
            f"the state was made for {len(state.timesteps)} timesteps that differ from the "
            f"sampler's {len(loaded.sampler.timesteps)}; quantize for this sampler."
        )


class SimulateBackend:
    """The backend `simulate`: float arithmetic on dequantized integers, no speed-up."""

    def check(self, *, device: str) -> None:
        """Nothing: it runs wherever torch runs."""

    def supports(self, layer: QuantizedLayer) -> str | None:  # noqa: ARG002
        """None: it executes every layer."""
        return None

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """See `simulate`."""
        return simulate(loaded, state)


def _without_weight(layer: WeightedLayer) -> WeightedLayer:
    """A shell of `layer` that keeps its geometry and lets go of its weight."""
    shell = copy.copy(layer)
    shell._parameters = {"weight": None, "bias": None}
    return shell
