"""A quantized layer as arrays: int8 weights, scales, and what depends on the sampler step.

Without VNNI or AMX, x86 adds pairs of byte products in 16 bits and saturates: 255 * 127 twice is
64,770 and becomes 32,767. Weights of at most 64 are exact all the same (255 * 64 twice makes
32,640), and a larger one is the sum of two such. Where that is needed, every input channel stands
twice, beside the halves of its weights: the same int32 sum for twice the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tfq_bench.quant import int8_weight

if TYPE_CHECKING:
    from tfq_bench.quant import LayerPart, QuantizedLayer, WeightedLayer

__all__ = ["COLUMNS", "EXACT_WEIGHT", "UNIT", "Geometry", "Operands", "PartOperands"]

EXACT_WEIGHT = 64
"""The largest magnitude of a weight at which two products with 255 fit 16 bits."""

UNIT = 2.0**-7
"""What the model multiplies int8 weights by: its engine looks for a scale there. A power of two
rounds nothing, and the scale of the step, times its reciprocal, takes it back."""

COLUMNS = 3
"""Numbers of a part that depend on the step: 1/s, s/UNIT and the zero point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a convolution walks over its input; pairs are (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, layer: WeightedLayer) -> Geometry | None:
        """That of a convolution whose padding is numbers; None of a linear layer."""
        if not isinstance(layer, nn.Conv2d):
            return None
        assert not isinstance(layer.padding, str)
        return cls(
            stride=(layer.stride[0], layer.stride[1]),
            padding=(layer.padding[0], layer.padding[1]),
            dilation=(layer.dilation[0], layer.dilation[1]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartOperands:
    """The input channels [start, stop) of a layer.

    Args:
        bits: of the activations' codes.
        weight: int8 `[C_out, C_in, kh, kw]` or `[C_out, C_in]`; with `halves` twice the channels.
        scale: float32 `[C_out]`, of the weights.
        shifted: whether a zero point is other than 0 at some step.
    """

    start: int
    stop: int
    bits: int
    weight: np.ndarray[Any, Any]
    halves: bool
    scale: np.ndarray[Any, Any]
    shifted: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operands:
    """What the model's constants and tables of one layer are made of.

    Args:
        geometry: None for a linear layer.
        bias: float32 `[C_out]` or None.
        table: float32 `[T, COLUMNS * parts]`, a row per step of the sampler.
    """

    name: str
    geometry: Geometry | None
    parts: tuple[PartOperands, ...]
    bias: np.ndarray[Any, Any] | None
    table: np.ndarray[Any, Any]

    @classmethod
    def of(
        cls, layer: QuantizedLayer, original: WeightedLayer, *, steps: int, saturates: bool
    ) -> Operands:
        """Those of a layer that the backend has no reason to refuse.

        Args:
            steps: of the sampler.
            saturates: whether this machine loses sums of full 8-bit weights.
        """
        columns = [column for part in layer.parts for column in _columns(part)]
        table = torch.stack([column.expand(steps) for column in columns], 1)
        return cls(
            name=layer.name,
            geometry=Geometry.of(original),
            parts=tuple(_part(part, saturates) for part in layer.parts),
            bias=None if layer.bias is None else layer.bias.float().numpy(),
            table=table.numpy(),
        )

    @property
    def channels(self) -> int:
        """C_out."""
        return len(self.parts[0].scale)

    @property
    def halves(self) -> bool:
        """Whether some part's weights are sums of two."""
        return any(part.halves for part in self.parts)


def _part(part: LayerPart, saturates: bool) -> PartOperands:
    assert part.activation is not None, "`int8_refusal` tells of float activations"
    weight = int8_weight(part).numpy()
    halves = saturates and int(np.abs(weight).max()) > EXACT_WEIGHT
    if halves:
        low = weight >> 1
        weight = np.concatenate([low, weight - low], 1)
    return PartOperands(
        start=part.start,
        stop=part.stop,
        bits=part.activation.bits,
        weight=weight.astype(np.int8),
        halves=halves,
        scale=part.scale.float().numpy(),
        shifted=bool(part.activation.zero_point.any()),
    )


def _columns(part: LayerPart) -> list[torch.Tensor]:
    assert part.activation is not None
    scale = part.activation.scale
    return [scale.reciprocal(), scale / UNIT, part.activation.zero_point.float()]
