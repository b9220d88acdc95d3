"""A network under quantization: what learning methods change until they freeze it into a state.

It is a copy of the full-precision network in which every quantizable layer is a `FakeQuantLayer`:
its weights may be float, soft (rounding is being learned) or hard (integers), its input float or
quantized, each switched on its own.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.layers import (
    WeightedLayer,
    apply_layer,
    find_layer,
    input_parts,
    replace_layer,
)
from tfq_bench.quant.learn.adaround import SoftRounding
from tfq_bench.quant.learn.lsq import LSQFakeQuantize
from tfq_bench.quant.policy import Exempt, LayerBits, exemptions
from tfq_bench.quant.rtn import WeightMethod, round_weight
from tfq_bench.quant.state.affine import dequantize, per_channel
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.types.networks import StepCursor

if TYPE_CHECKING:
    from tfq_bench.types import Layer, Scheme
    from tfq_bench.types.networks import LoadedModel

__all__ = [
    "ActivationMode",
    "FakeQuantLayer",
    "FakeQuantNetwork",
    "FakeQuantPart",
    "WeightMode",
]

INT8 = 8

WeightMode = Literal["float", "soft", "hard"]
ActivationMode = Literal["float", "quantized"]


class FakeQuantPart(nn.Module):
    """The input channels [start, stop) of a layer.

    `codes`, `scale` and `zero_point` are the weight's integers, from nearest rounding until
    learning replaces the codes. `rounding` is there between `FakeQuantLayer.begin_rounding` and
    `.finish_rounding`.
    """

    weight: Tensor
    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        start: int,
        stop: int,
        bits: int,
        method: WeightMethod,
        symmetric: bool,
    ) -> None:
        super().__init__()
        self.start, self.stop, self.bits = start, stop, bits
        codes, scale, zero_point = round_weight(weight, bits, method=method, symmetric=symmetric)
        self.register_buffer("weight", weight.detach())
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.rounding: SoftRounding | None = None
        self.activation: LSQFakeQuantize | None = None

    def effective_weight(self, mode: WeightMode) -> Tensor:
        """float32 weight of this part."""
        if mode == "float":
            return self.weight
        if mode == "soft":
            assert self.rounding is not None
            return self.rounding.soft()
        return dequantize(
            self.codes,
            per_channel(self.scale, self.codes),
            per_channel(self.zero_point, self.codes),
        )


class FakeQuantLayer(nn.Module):
    """A convolution or linear layer under quantization.

    Starts with hard weights (nearest rounding) and float activations.

    Args:
        bounds: input channels [start, stop) of each part.
        step: where per-step tables are read.
    """

    def __init__(
        self,
        original: WeightedLayer,
        layer: Layer,
        bits: LayerBits,
        bounds: Sequence[tuple[int, int]],
        step: StepCursor,
        *,
        method: WeightMethod,
        symmetric: bool,
    ) -> None:
        super().__init__()
        self.spec, self.bits, self.bounds = layer, bits, tuple(bounds)
        self.weights: WeightMode = "hard"
        self.activations: ActivationMode = "float"
        whole = original.weight.detach().float()
        self.parts = nn.ModuleList(
            FakeQuantPart(
                whole if len(bounds) == 1 else whole[:, start:stop],
                start=start,
                stop=stop,
                bits=bits.wbits,
                method=method,
                symmetric=symmetric,
            )
            for start, stop in bounds
        )
        self._geometry = (original,)  # in a tuple, so that it is no submodule
        self._step = step
        self._widths = [stop - start for start, stop in bounds]
        self._channel_dim = 1 if layer.kind == "conv2d" else -1

    @property
    def pieces(self) -> list[FakeQuantPart]:
        """The parts, typed."""
        return list(self.parts)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output under the present modes."""
        inputs = (x,) if len(self._widths) == 1 else torch.split(x, self._widths, self._channel_dim)
        original = self._geometry[0]
        total: Tensor | None = None
        for part, piece in zip(self.pieces, inputs, strict=True):
            if self.activations == "quantized" and part.activation is not None:
                piece = part.activation(piece, self._step.index)
            bias = original.bias if total is None else None
            y = apply_layer(original, piece, part.effective_weight(self.weights), bias)
            total = y if total is None else total + y
        assert total is not None
        return total

    def begin_rounding(self) -> list[nn.Parameter]:
        """Makes rounding learnable, from the full-precision weights on; the variables alpha."""
        self.weights = "soft"
        for part in self.pieces:
            part.rounding = SoftRounding(part.weight, part.scale, part.zero_point, part.bits)
        return [part.rounding.alpha for part in self.pieces if part.rounding is not None]

    def finish_rounding(self) -> None:
        """Ends learning: the learned codes become the layer's."""
        for part in self.pieces:
            if part.rounding is not None:
                part.codes.copy_(part.rounding.codes())
                part.rounding = None
        self.weights = "hard"

    def set_tables(self, tables: Sequence[ActivationQParams | None]) -> None:
        """Activation parameters of each part; None leaves its input float.

        Raises:
            QuantizationError: another number of tables than parts.
        """
        if len(tables) != len(self.parts):
            raise QuantizationError(
                f"layer '{self.spec.name}' has {len(self.parts)} parts and needs as many "
                f"activation tables, found {len(tables)}."
            )
        for part, table in zip(self.pieces, tables, strict=True):
            part.activation = None if table is None else LSQFakeQuantize(table, part.weight.device)

    def shift_bias(self, delta: Tensor) -> None:
        """Adds `delta`, float32 `[C_out]`, to the bias; a layer without one gets one."""
        original = self._geometry[0]
        delta = delta.to(original.weight.device, original.weight.dtype)
        bias = delta if original.bias is None else original.bias.detach() + delta
        original.bias = nn.Parameter(bias, requires_grad=False)

    def frozen(self) -> QuantizedLayer:
        """The layer as data, on the CPU."""
        bias = self._geometry[0].bias
        return QuantizedLayer(
            name=self.spec.name,
            kind=self.spec.kind,
            wbits=self.bits.wbits,
            parts=tuple(
                LayerPart(
                    start=part.start,
                    stop=part.stop,
                    weight=part.codes.cpu().clone(),
                    scale=part.scale.cpu().clone(),
                    zero_point=part.zero_point.cpu().clone(),
                    activation=None if part.activation is None else part.activation.table(),
                )
                for part in self.pieces
            ),
            bias=None if bias is None else bias.detach().float().cpu().clone(),
        )


class FakeQuantNetwork:
    """A copy of the network with a `FakeQuantLayer` for every layer that the plan quantizes.

    Args:
        plan: bits or exemption by layer name, see `policy.resolve`.
        split: give both halves of a concatenation in front of a shortcut convolution parameters
            of their own (Q-Diffusion).
        weights: how a channel's range is found.
        symmetric_weights: whether weight codes have their zero point in the middle. Those of 8
            bits always do, because int8 kernels need it.

    Raises:
        QuantizationError: a weight is not finite, or the network is not in float32: gradients of
            16-bit networks vanish.
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
        for layer in loaded.topology.layers:
            bits = plan[layer.name]
            if isinstance(bits, Exempt):
                continue
            original = find_layer(self.network, layer.name)
            try:
                working = FakeQuantLayer(
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
            replace_layer(self.network, layer.name, working)
            self.layers[layer.name] = working

    def layer(self, name: str) -> FakeQuantLayer:
        """The working layer called `name`; KeyError when it is exempt or unknown."""
        return self.layers[name]

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
        """The working network's prediction `[B, C, H, W]`.

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
            **extra,
        )
