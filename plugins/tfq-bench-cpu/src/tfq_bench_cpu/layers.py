"""Modules that stand in for `nn.Conv2d` and `nn.Linear` and run the int8 kernels.

Everything that does not depend on the input is done when a layer is made: 4-bit codes become
int8 values, the form that is exact here is found and packed, tables become Python numbers. A call
quantizes its input with the parameters of the current sampler step, runs one kernel per part and
counts itself.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tfq_bench.api import LoweringError, StepCursor
from tfq_bench.quant import int8_weight
from tfq_bench_cpu import codes, kernels, onednn
from tfq_bench_cpu.proofs import prove_conv2d, prove_linear

if TYPE_CHECKING:
    from tfq_bench.quant import LayerPart, QuantizedLayer

__all__ = ["CONV2D", "LINEAR", "Int8Conv2d", "Int8Linear"]

CONV2D = "onednn.qconv2d_pointwise u8s8"
LINEAR = "onednn.qlinear_pointwise u8s8"


class _Part(nn.Module):
    """One slice of the input channels: its packed weight, scales and per-step parameters."""

    packed: kernels.Packed
    weight_scale: Tensor

    def __init__(self, part: LayerPart) -> None:
        super().__init__()
        assert part.activation is not None, "`int8_refusal` tells of float activations"
        self.channels = (part.start, part.stop)
        self.bits = part.activation.bits
        # Numbers, not tensors: the kernels take numbers, and `tolist` keeps float32 exactly.
        scales, zero_points = part.activation.scale.tolist(), part.activation.zero_point.tolist()
        self.table: list[tuple[float, int]] = list(zip(scales, zero_points, strict=True))
        self.register_buffer("weight_scale", part.scale.float().contiguous(), persistent=False)

    def quantized(self, x: Tensor, step: StepCursor) -> tuple[Tensor, float, int]:
        """Codes of `x` with the scale and zero point of the current step."""
        index = 0 if len(self.table) == 1 else int(step.index)
        scale, zero_point = self.table[index]
        return codes.quantize(x, scale, zero_point, self.bits), scale, zero_point


class _Int8Layer(nn.Module):
    """What both kinds share: parts, bias, the step and the count of executed kernels.

    Args:
        outputs: per image and channel; a self-test tries products of about this size.

    Raises:
        LoweringError: the self-test finds no form in which the layer's sums are exact.
    """

    bias: Tensor | None
    kernel: str

    def __init__(
        self,
        layer: QuantizedLayer,
        step: StepCursor,
        executed: MutableMapping[str, int],
        outputs: int = 256,
    ) -> None:
        super().__init__()
        self.step = step
        self.executed = executed
        bias = None if layer.bias is None else layer.bias.float()
        self.register_buffer("bias", bias, persistent=False)
        parts = []
        for number, described in enumerate(layer.parts):
            part = _Part(described)
            weight = int8_weight(described).to(torch.int8)
            packed = self._proved(part, weight, bias if number == 0 else None, outputs)
            if packed is None:
                raise LoweringError(
                    "in no form are the int8 sums of its worst inputs exact on this machine",
                    layer=layer.name,
                )
            part.packed = packed
            parts.append(part)
        self.parts = nn.ModuleList(parts)
        self.kernel += "".join(sorted({part.packed.form.value for part in parts}))

    def products(self) -> list[str]:
        """How each part multiplies: its form, and what its kernel does with the sums."""
        return [
            f"{packed.form.name.lower()}: {packed.epilogue.value}"
            for packed in (part.packed for part in cast("list[_Part]", list(self.parts)))
        ]

    def _proved(
        self, part: _Part, weight: Tensor, bias: Tensor | None, outputs: int
    ) -> kernels.Packed | None:
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
        outputs: int = 256,
    ) -> None:
        self.geometry = geometry
        super().__init__(layer, step, executed, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_out, H', W']` in x's type."""
        return self._forward(x, 1)

    def _proved(
        self, part: _Part, weight: Tensor, bias: Tensor | None, outputs: int
    ) -> kernels.Packed | None:
        scale, geometry = part.weight_scale, self.geometry
        return prove_conv2d(weight, scale, bias, geometry, part.table, outputs)

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

    def _proved(
        self, part: _Part, weight: Tensor, bias: Tensor | None, outputs: int
    ) -> kernels.Packed | None:
        return prove_linear(weight, part.weight_scale, bias, part.table, outputs)

    def _run(self, part: _Part, x: Tensor, bias: Tensor | None) -> Tensor:
        code, scale, zero_point = part.quantized(x, self.step)
        return kernels.linear(code, scale, zero_point, part.packed, part.weight_scale, bias)
