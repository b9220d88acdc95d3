"""One slice of a layer's input channels: tensors on the device, and the specs of its kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench_cuda.kernels.norms import Table
from tfq_bench_cuda.kernels.operands import Factors
from tfq_bench_cuda.kernels.specs import (
    ConvSpec,
    Ending,
    LinearSpec,
    ProductSpec,
    QuantizeSpec,
)

if TYPE_CHECKING:
    from tfq_bench.quant import LayerPart
    from tfq_bench_cuda.kernels.borders import Geometry
    from tfq_bench_cuda.kernels.tiles import TileChoice
    from tfq_bench_cuda.weights import Weight

__all__ = ["Part", "conv_spec", "dtype_name", "linear_spec"]


class Part(nn.Module):
    """One slice of the input channels: its weight, and the parameters of its codes."""

    weight_scale: Tensor
    bias: Tensor
    scale: Tensor
    inverse: Tensor
    zero_point: Tensor
    sums: Tensor

    def __init__(
        self, part: LayerPart, weight: Weight, bias: Tensor | None, device: torch.device
    ) -> None:
        super().__init__()
        assert part.activation is not None, "`int8_refusal` tells of float activations"
        self.start, self.channels = part.start, part.stop - part.start
        self.bits = part.activation.bits
        self.stored = weight
        scale = part.activation.scale
        for name, value in {
            "weight_scale": part.scale.float(),
            "bias": torch.zeros(weight.shape[0]) if bias is None else bias.float(),
            "scale": scale,
            "inverse": scale.reciprocal(),
            "zero_point": part.activation.zero_point,
            "sums": weight.read().sum(1, dtype=torch.int32),
        }.items():
            self.register_buffer(name, value.to(device).contiguous(), persistent=False)

    @property
    def stored(self) -> Weight:
        """The weight as it lies on the device; `Joined` exchanges it for rows of its own."""
        return self._stored

    @stored.setter
    def stored(self, weight: Weight) -> None:
        self._stored = weight
        # A buffer, so that whoever adds up the network's bytes sees them.
        self.register_buffer("integers", weight.stored, persistent=False)

    @property
    def weight(self) -> Tensor:
        """int8 `[n, k]`; packed weights are unpacked anew, see `Weight.read`."""
        return self.stored.read()

    def factors(
        self, step: Tensor, *, sums: Tensor | None = None, positions: Tensor | None = None
    ) -> Factors:
        """This part's side of a product at a step; a convolution has border sums and positions.

        For one product: packed weights are valid until the next call of any part's.
        """
        return Factors(
            weight=self.weight,
            sums=self.sums if sums is None else sums,
            positions=positions,
            step=step,
            scale=self.scale,
            zero_point=self.zero_point,
            weight_scale=self.weight_scale,
            bias=self.bias,
        )

    @property
    def table(self) -> Table:
        """How its codes are made where a norm ends in them."""
        return Table(
            start=self.start,
            channels=self.channels,
            bits=self.bits,
            inverse=self.inverse,
            zero_point=self.zero_point,
        )

    def spec(self, x: Tensor, *, planes: bool) -> QuantizeSpec:
        """How this part's channels of x are quantized."""
        return QuantizeSpec(
            planes=planes,
            total=x.shape[1],
            start=self.start,
            channels=self.channels,
            dtype=dtype_name(x.dtype),
            bits=self.bits,
        )


def linear_spec(part: Part, ending: Ending, tiles: TileChoice) -> ProductSpec:
    """A product with int8 weights `[weights, k]`."""
    weights, k = part.stored.shape
    n = weights // 2 if ending.activation == "geglu" else weights
    return LinearSpec(n=n, k=k, ending=ending, tile=tiles(n, k, ending))


def conv_spec(
    part: Part, ending: Ending, tiles: TileChoice, geometry: Geometry, gathers: bool
) -> ProductSpec:
    """A convolution with int8 weights `[C_out, kh * kw * c]`."""
    n, terms = part.stored.shape
    taps = geometry.kernel[0] * geometry.kernel[1]
    c = terms // taps
    return ConvSpec(
        n=n,
        c=c,
        geometry=geometry,
        gather=gathers or not geometry.centred,
        ending=ending,
        tile=tiles(n, c, ending, taps=taps),
    )


def dtype_name(dtype: torch.dtype) -> str:
    """How specs call a type, for instance `float32`."""
    return str(dtype).removeprefix("torch.")
