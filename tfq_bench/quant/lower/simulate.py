"""A quantized state in float arithmetic: the same integers as the kernels, on any device.

Each layer multiplies codes less their zero points, as float32 numbers, and scales the sums:

    y = (sum_i (q_i - z) * (w_i - z_w)) * s * s_w + bias

Integers below 2^24 are exact in float32, so the sums are those of the kernels, in whatever order
they are added, and the epilogue rounds in the same places. This matters: were each product rounded,
sums would differ in the last bit, a few values would fall on the other side of a rounding border in
the next layer, and after some fifty layers simulation and kernels would be as far apart as
quantization noise is large. Padding with zeros is exact, because 0 has a code (the zero point).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench.errors import LoweringError
from tfq_bench.quant.layers import WeightedLayer, apply_layer, find_layer, replace_layer
from tfq_bench.quant.lower.elementwise import input_codes, scaled_sums
from tfq_bench.quant.lower.lowering import check_state, copy_network, finish_lowering
from tfq_bench.quant.lower.precision import tf32
from tfq_bench.quant.state.affine import per_channel, select_step
from tfq_bench.types.networks import KernelUse, Lowered, StepCursor

if TYPE_CHECKING:
    from tfq_bench.quant.state.quantized_state import QuantizedLayer, QuantizedState
    from tfq_bench.types.networks import LoadedModel

__all__ = ["SIMULATED_KERNEL", "SimulateBackend", "SimulatedLayer", "simulate"]

SIMULATED_KERNEL = "fp32 on dequantized integers"


class SimulatedLayer(nn.Module):
    """A layer that computes in float32 on integers.

    A split layer is the sum over its parts, the bias added in the first.

    Args:
        original: the layer it stands for; gives stride, padding, dilation, groups and device.
        step: where per-step tables are read, see `StepCursor`.
        executed: its entry `SIMULATED_KERNEL` is incremented at each call, when given.

    Raises:
        LoweringError: `layer` does not fit `original`.
    """

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
        shape = list(layer.parts[0].weight.shape)
        shape[1] = sum(part.weight.shape[1] for part in layer.parts)
        if shape != list(original.weight.shape):
            raise LoweringError(
                f"layer '{layer.name}': the network's weight has shape "
                f"{tuple(original.weight.shape)}, the state's {tuple(shape)}."
            )
        if len(layer.parts) > 1 and getattr(original, "groups", 1) != 1:
            raise LoweringError(f"layer '{layer.name}': a grouped convolution cannot be split.")
        # Broadcasts over the output: channels are its second or its last dimension.
        self._wide = (-1, 1, 1) if layer.kind == "conv2d" else (-1,)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.float().to(device))
        self._bits: list[int | None] = []
        for number, part in enumerate(layer.parts):
            table = part.activation
            self._bits.append(None if table is None else table.bits)
            integers = part.weight.float() - per_channel(part.zero_point, part.weight)
            self.register_buffer(f"weight_{number}", integers.to(device))
            self.register_buffer(
                f"weight_scale_{number}", part.scale.to(device).reshape(self._wide)
            )
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
            self._executed[SIMULATED_KERNEL] = self._executed.get(SIMULATED_KERNEL, 0) + 1
        if len(self._bits) == 1:
            return self._part(x, 0).to(x.dtype)
        pieces = torch.split(x, self._widths, dim=self._channel_dim)
        y = self._part(pieces[0], 0)
        for number in range(1, len(pieces)):
            y += self._part(pieces[number], number)
        return y.to(x.dtype)

    def _part(self, x: Tensor, number: int) -> Tensor:
        weight: Tensor = getattr(self, f"weight_{number}")
        weight_scale: Tensor = getattr(self, f"weight_scale_{number}")
        bits = self._bits[number]
        bias = None
        if self.bias is not None and number == 0:
            bias = self.bias.reshape(self._wide)
        if bits is None:
            y = apply_layer(self._geometry[0], x.float(), weight, None).mul_(weight_scale)
            y = y if bias is None else y.add_(bias)
        else:
            scale, zero_point = select_step(
                getattr(self, f"scale_{number}"),
                getattr(self, f"zero_point_{number}"),
                self._step.index,
                x.dim(),
            )
            codes = input_codes(x, scale, zero_point, bits)
            with tf32():  # integers of at most 9 bits: the products stay exact
                y = apply_layer(self._geometry[0], codes, weight, None)
            y = scaled_sums(y, scale, weight_scale, bias)
        if y.dim() == 4 and not y.is_cuda:
            # The layout of the kernels: norms that follow add in the order of memory. On a GPU
            # norms of torch read channel after channel in any case, and make a copy for it.
            y = y.contiguous(memory_format=torch.channels_last)
        return y


def simulate(loaded: LoadedModel, state: QuantizedState | None) -> Lowered:
    """The network with every layer of `state` simulated; None gives a full-precision copy.

    Time projections that the state caches are looked up, see `CachedProjection`.

    `loaded.network` stays as it is.

    Raises:
        LoweringError: the state was made from another model, or for other timesteps.
        QuantizationError: the state has a layer that the network lacks.
    """
    step = StepCursor(loaded.device)
    if state is None:
        network = copy_network(loaded.network, ())
        return Lowered(network=network, step=step, execution="full-precision")
    check_state(loaded, state)
    network = copy_network(loaded.network, state.layers)
    executed: dict[str, int] = {}
    uses = []
    for name, layer in state.layers.items():
        original = find_layer(network, name)
        replace_layer(network, name, SimulatedLayer(layer, original, step, executed))
        uses.append(
            KernelUse(
                layer=name,
                kernel=SIMULATED_KERNEL,
                wbits=layer.wbits,
                abits=layer.abits,
                macs=loaded.topology.layer(name).macs,
            )
        )
    uses.extend(finish_lowering(network, loaded, state, step, executed))
    return Lowered(
        network=network, step=step, execution="simulated", kernels=tuple(uses), executed=executed
    )


class SimulateBackend:
    """The backend `simulate`: float arithmetic on dequantized integers, no speed-up."""

    def check(self, *, device: str) -> None:
        """Nothing: it runs wherever torch runs."""

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """See `simulate`."""
        return simulate(loaded, state)


def _without_weight(layer: WeightedLayer) -> WeightedLayer:
    """A shell of `layer` that keeps its geometry and lets go of its weight."""
    shell = copy.copy(layer)
    shell._parameters = {"weight": None, "bias": None}
    return shell
