"""Modules that stand in for `nn.Conv2d` and `nn.Linear` and run the int8 kernels.

Everything that does not depend on the input is done when a layer is made: 4-bit codes become
int8 values, weights are packed, tables become Python numbers. A call quantizes its input with
the parameters of the current sampler step, runs one kernel per part and counts itself.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tfq_bench.api import StepCursor
from tfq_bench.quant import int8_weight
from tfq_bench_cpu import codes, kernels, onednn

if TYPE_CHECKING:
    from tfq_bench.quant import LayerPart, QuantizedLayer

__all__ = ["CONV2D", "HALVES", "LINEAR", "Int8Conv2d", "Int8Linear"]

CONV2D = "onednn.qconv2d_pointwise u8s8"
LINEAR = "onednn.qlinear_pointwise u8s8"
HALVES = ", weights in halves"
"""Added to a kernel's name where a part's weights are sums of two: see `kernels`."""


class _Part(nn.Module):
    """One slice of the input channels: its packed weight, scales and per-step parameters."""

    weight_scale: Tensor

    def __init__(self, part: LayerPart, packed: kernels.Packed) -> None:
        super().__init__()
        assert part.activation is not None, "`int8_refusal` tells of float activations"
        self.channels = (part.start, part.stop)
        self.bits = part.activation.bits
        # Numbers, not tensors: the kernels take numbers, and `tolist` keeps float32 exactly.
        self.scales: list[float] = part.activation.scale.tolist()
        self.zero_points: list[int] = part.activation.zero_point.tolist()
        self.packed = packed
        self.register_buffer("weight_scale", part.scale.float().contiguous(), persistent=False)

    def quantized(self, x: Tensor, step: StepCursor) -> tuple[Tensor, float, int]:
        """Codes of `x` with the scale and zero point of the current step."""
        index = 0 if len(self.scales) == 1 else int(step.index)
        scale, zero_point = self.scales[index], self.zero_points[index]
        return codes.quantize(x, scale, zero_point, self.bits), scale, zero_point


class _Int8Layer(nn.Module):
    """What both kinds share: parts, bias, the step and the count of executed kernels."""

    bias: Tensor | None
    kernel: str

    def __init__(
        self, layer: QuantizedLayer, step: StepCursor, executed: MutableMapping[str, int]
    ) -> None:
        super().__init__()
        self.step = step
        self.executed = executed
        parts = [_Part(part, self._pack(int8_weight(part).to(torch.int8))) for part in layer.parts]
        self.parts = nn.ModuleList(parts)
        if any(part.packed.halves for part in parts):
            self.kernel += HALVES
        bias = None if layer.bias is None else layer.bias.float()
        self.register_buffer("bias", bias, persistent=False)

    def _pack(self, weight: Tensor) -> kernels.Packed:
        raise NotImplementedError

    def _run(self, part: _Part, x: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _forward(self, x: Tensor, axis: int) -> Tensor:
        """The sum over parts, in x's type; the bias goes into the first."""
        first, *others = cast("list[_Part]", list(self.parts))
        if not others:
            result = self._run(first, x, self.bias)
        else:
            result = self._run(first, _slice(x, first, axis), self.bias)
            for part in others:
                result += self._run(part, _slice(x, part, axis), None)
        self.executed[self.kernel] = self.executed.get(self.kernel, 0) + 1
        return result.to(x.dtype)


def _slice(x: Tensor, part: _Part, axis: int) -> Tensor:
    start, stop = part.channels
    return x.narrow(axis, start, stop - start)


class Int8Conv2d(_Int8Layer):
    """An int8 convolution of `[B, C_in, H, W]`; gives channels last, in its input's type."""

    kernel = CONV2D

    def __init__(
        self,
        layer: QuantizedLayer,
        geometry: onednn.Geometry,
        step: StepCursor,
        executed: MutableMapping[str, int],
    ) -> None:
        self.geometry = geometry
        super().__init__(layer, step, executed)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_out, H', W']` in x's type."""
        return self._forward(x, 1)

    def _pack(self, weight: Tensor) -> kernels.Packed:
        return kernels.pack_conv2d(weight, self.geometry)

    def _run(self, part: _Part, x: Tensor, bias: Tensor | None) -> Tensor:
        code, scale, zero_point = part.quantized(x, self.step)
        return kernels.conv2d(
            code, scale, zero_point, part.packed, part.weight_scale, bias, self.geometry
        )


class Int8Linear(_Int8Layer):
    """An int8 linear layer of `[..., C_in]`."""

    kernel = LINEAR

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C_out]` in x's type."""
        return self._forward(x, -1)

    def _pack(self, weight: Tensor) -> kernels.Packed:
        return kernels.pack_linear(weight)

    def _run(self, part: _Part, x: Tensor, bias: Tensor | None) -> Tensor:
        code, scale, zero_point = part.quantized(x, self.step)
        return kernels.linear(code, scale, zero_point, part.packed, part.weight_scale, bias)
