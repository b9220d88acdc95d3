"""One slice of a layer's input channels: tensors on the device, and the specs of its kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tfq_bench_cuda.kernels.operands import Factors
from tfq_bench_cuda.kernels.specs import (
    ConvSpec,
    Ending,
    LinearSpec,
    ProductSpec,
    QuantizeSpec,
    Tile,
)

if TYPE_CHECKING:
    from tfq_bench.quant import LayerPart
    from tfq_bench_cuda.kernels.borders import Geometry

__all__ = ["Part", "chained", "conv_specs", "dtype_name", "linear_specs"]


class Part(nn.Module):
    """One slice of the input channels: its weight, and the parameters of its codes."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    scale: Tensor
    inverse: Tensor
    zero_point: Tensor
    sums: Tensor

    def __init__(
        self, part: LayerPart, weight: Tensor, bias: Tensor | None, device: torch.device
    ) -> None:
        super().__init__()
        assert part.activation is not None, "`int8_refusal` tells of float activations"
        self.start, self.channels = part.start, part.stop - part.start
        self.bits = part.activation.bits
        scale = part.activation.scale
        for name, value in {
            "weight": weight,
            "weight_scale": part.scale.float(),
            "bias": torch.zeros(len(weight)) if bias is None else bias.float(),
            "scale": scale,
            "inverse": scale.reciprocal(),
            "zero_point": part.activation.zero_point,
            "sums": weight.sum(1, dtype=torch.int32),
        }.items():
            self.register_buffer(name, value.to(device).contiguous(), persistent=False)

    def factors(
        self, step: Tensor, *, sums: Tensor | None = None, positions: Tensor | None = None
    ) -> Factors:
        """This part's side of a product at a step; a convolution has border sums and positions."""
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


def chained(specs: list[ProductSpec], out: str) -> list[ProductSpec]:
    """The parts' products: each adds to the one before, and only the last one rounds to `out`."""
    last = len(specs) - 1
    return [
        replace(spec, ending=Ending(out=out if number == last else "float32", partial=number > 0))
        for number, spec in enumerate(specs)
    ]


def linear_specs(parts: list[Part], tiles: list[Tile]) -> list[ProductSpec]:
    """Products with int8 weights `[C_out, k]`; `chained` ends them."""
    return [
        LinearSpec(n=len(part.weight), k=part.weight.shape[1], ending=Ending(), tile=tile)
        for part, tile in zip(parts, tiles, strict=True)
    ]


def conv_specs(
    parts: list[Part], tiles: list[Tile], geometry: Geometry, gathers: bool
) -> list[ProductSpec]:
    """Convolutions with int8 weights `[C_out, kh * kw * c]`; `chained` ends them."""
    taps = geometry.kernel[0] * geometry.kernel[1]
    return [
        ConvSpec(
            n=len(part.weight),
            c=part.weight.shape[1] // taps,
            geometry=geometry,
            gather=gathers or not geometry.centred,
            ending=Ending(),
            tile=tile,
        )
        for part, tile in zip(parts, tiles, strict=True)
    ]


def dtype_name(dtype: torch.dtype) -> str:
    """How specs call a type, for instance `float32`."""
    return str(dtype).removeprefix("torch.")
