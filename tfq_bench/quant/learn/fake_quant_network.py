"""A network under quantization: what learning methods change until they freeze it into a state.

It is a copy of the full-precision network in which every quantizable layer is a `FakeQuantLayer`:
its weights may be float, soft (rounding is being learned) or hard (integers), its input float or
quantized, each switched on its own.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.layers import find_layer, input_parts, replace_layer, round_to_half
from tfq_bench.quant.learn.fake_quant_layer import (
    ActivationMode,
    FakeQuantLayer,
    WeightMode,
    shifted_bias,
)
from tfq_bench.quant.policy import HALF, Exempt, LayerBits, exemptions
from tfq_bench.quant.rtn import WeightMethod
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.types.networks import StepCursor

if TYPE_CHECKING:
    from tfq_bench.types import Scheme
    from tfq_bench.types.networks import LoadedModel

__all__ = ["FakeQuantNetwork"]

INT8 = 8


class FakeQuantNetwork:
    """A copy of the network with a `FakeQuantLayer` for every layer that the plan quantizes.

    Layers that the plan keeps in float16 are rounded to it, as they will be.

    Args:
        plan: bits or exemption by layer name, see `policy.resolve`.
        split: give both halves of a concatenation in front of a shortcut convolution parameters
            of their own (Q-Diffusion).
        weights: how a channel's range is found.
        symmetric_weights: whether weight codes have their zero point in the middle. Those of 8
            bits always do, because int8 kernels need it.

    Raises:
        QuantizationError: a weight is not finite, or too large for the float16 that it is to be
            kept in; or the network is not in float32: gradients of 16-bit networks vanish.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        plan: Mapping[str, LayerBits | Exempt],
        *,
        split: bool = False,
        weights: WeightMethod = "minmax",
        symmetric_weights: bool = False,
    ) -> None:
        dtype = next(loaded.network.parameters()).dtype
        if dtype != torch.float32:
            raise QuantizationError(
                f"methods that learn need a network in float32, found {dtype}; set the model's "
                'option dtype = "float32", or choose a method that learns nothing (rtn).'
            )
        self.loaded, self.plan = loaded, plan
        self.cursor = StepCursor(loaded.device)
        self.network = copy.deepcopy(loaded.network).requires_grad_(False)
        self.layers: dict[str, FakeQuantLayer] = {}
        self._biases: dict[str, Tensor] = {}  # of exempt layers, where they are not the model's
        for layer in loaded.topology.layers:
            bits = plan[layer.name]
            original = find_layer(self.network, layer.name)
            if isinstance(bits, Exempt):
                if bits.bits == HALF:
                    round_to_half(original, layer.name)
                continue
            try:
                fake_quant = FakeQuantLayer(
                    original,
                    layer,
                    bits,
                    input_parts(layer, original, split=split),
                    self.cursor,
                    method=weights,
                    # Codes of 8 bits less a free zero point would not fit int8, and no kernel takes
                    # them; narrower codes always fit.
                    symmetric=symmetric_weights or bits.wbits == INT8,
                )
            except QuantizationError as error:
                raise QuantizationError(f"weight of layer '{layer.name}': {error}") from error
            replace_layer(self.network, layer.name, fake_quant)
            self.layers[layer.name] = fake_quant

    def layer(self, name: str) -> FakeQuantLayer:
        """The fake-quantized layer called `name`; KeyError when it is exempt or unknown."""
        return self.layers[name]

    def shift_bias(self, name: str, delta: Tensor) -> None:
        """Adds `delta`, float32 `[C_out]`, to a layer's bias, quantized or exempt.

        A layer without a bias gets one. The state holds it.
        """
        if name in self.layers:
            self.layers[name].shift_bias(delta)
            return
        exempt = find_layer(self.network, name)
        exempt.bias = shifted_bias(exempt, delta)
        self._biases[name] = exempt.bias.detach()

    def set(
        self,
        names: Collection[str] | None = None,
        *,
        weights: WeightMode | None = None,
        activations: ActivationMode | None = None,
    ) -> None:
        """Switches the layers `names`, all by default; None leaves a mode as it is."""
        for name in self.layers if names is None else names:
            if name in self.layers:
                self.layers[name].weights = weights or self.layers[name].weights
                self.layers[name].activations = activations or self.layers[name].activations

    def predict(
        self, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor], step: Tensor
    ) -> Tensor:
        """The fake-quantized network's prediction `[B, C, H, W]`.

        Args:
            step: int64 `[B]` or `[1]`, index of each sample's sampler step.
        """
        self.cursor.index = step.to(self.loaded.device)
        return self.loaded.model.predict(self.network, x, timestep, condition)

    def freeze(
        self, method: str, scheme: Scheme, *, dropped: Collection[str] = (), **extra: Any
    ) -> QuantizedState:
        """The state: hard weights and present activation parameters.

        Args:
            method: name of the quantizer.
            dropped: layers that are not in the state because nothing computes them any more.
            extra: further fields of `QuantizedState`.

        Raises:
            QuantizationError: learning of a layer has not ended.
        """
        if soft := [name for name, layer in self.layers.items() if layer.weights == "soft"]:
            raise QuantizationError(
                f"layer '{soft[0]}' is still being learned; finish its rounding first."
            )
        exempt, half = exemptions(
            {name: bits for name, bits in self.plan.items() if name not in dropped}
        )
        return QuantizedState(
            model=self.loaded.model.digest,
            method=method,
            scheme=scheme,
            timesteps=tuple(self.loaded.sampler.timesteps),
            layers={
                name: layer.frozen() for name, layer in self.layers.items() if name not in dropped
            },
            exempt=exempt,
            half=half,
            biases={name: bias.float().cpu().clone() for name, bias in self._biases.items()},
            **extra,
        )
