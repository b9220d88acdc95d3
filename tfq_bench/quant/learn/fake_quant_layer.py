"""A layer under quantization: weights float, soft (being learned) or hard, input float or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.layers import WeightedLayer, apply_layer
from tfq_bench.quant.learn.adaround import SoftRounding
from tfq_bench.quant.learn.lsq import LSQFakeQuantize
from tfq_bench.quant.policy import LayerBits
from tfq_bench.quant.rtn import WeightMethod, round_weight
from tfq_bench.quant.state.affine import dequantize, per_channel, quantize
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer
from tfq_bench.types.networks import StepCursor

if TYPE_CHECKING:
    from tfq_bench.types import Layer

__all__ = ["ActivationMode", "FakeQuantLayer", "FakeQuantPart", "WeightMode", "shifted_bias"]

WeightMode = Literal["float", "soft", "hard"]
ActivationMode = Literal["float", "quantized"]


def shifted_bias(layer: WeightedLayer, delta: Tensor) -> nn.Parameter:
    """The layer's bias, or 0 where it has none, plus `delta` `[C_out]`."""
    delta = delta.to(layer.weight)
    bias = delta if layer.bias is None else layer.bias.detach() + delta
    return nn.Parameter(bias, requires_grad=False)


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

    def set_grid(self, scale: Tensor, zero_point: Tensor) -> None:
        """Another grid: float32 and int32 `[C_out]`; codes are rounded to nearest on it."""
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        codes = quantize(
            self.weight,
            per_channel(self.scale, self.weight),
            per_channel(self.zero_point, self.weight),
            self.bits,
        )
        self.codes.copy_(codes)

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

    def set_weight_grids(self, grids: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Scale and zero point of each part's weights, for methods with a search of their own.

        Args:
            grids: float32 and int32 `[C_out]` each. Codes of 8 bits less the zero point must fit
                int8, or no kernel takes them.

        Raises:
            QuantizationError: another number of grids than parts.
        """
        if len(grids) != len(self.parts):
            raise QuantizationError(
                f"layer '{self.spec.name}' has {len(self.parts)} parts and needs as many weight "
                f"grids, found {len(grids)}."
            )
        for part, (scale, zero_point) in zip(self.pieces, grids, strict=True):
            part.set_grid(scale, zero_point)

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
        self._geometry[0].bias = shifted_bias(self._geometry[0], delta)

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
