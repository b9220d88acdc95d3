"""Modules that stand in for `nn.Conv2d` and `nn.Linear` and run the int8 kernels.

What does not depend on the input is done when a layer is made: weights become int8 less their zero
point, with the channels of a filter's tap side by side. A call quantizes its input with the
parameters of the current sampler step, runs one product per part and counts itself. Nothing is read
on the host, so a step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfq_bench.api import StepCursor
from tfq_bench.quant import int8_weight
from tfq_bench_cuda.kernels.borders import Geometry, border_sums, positions
from tfq_bench_cuda.kernels.operands import Additions
from tfq_bench_cuda.kernels.specs import LinearSpec, ProductSpec, Tile, padded
from tfq_bench_cuda.parts import Part, chained, conv_specs, dtype_name, linear_specs

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedLayer

__all__ = ["CudaConv2d", "CudaLinear"]


class _CudaLayer(nn.Module):
    """What both kinds share: parts, the chain of their products, and the count of calls."""

    def __init__(
        self,
        kernels: Any,
        step: StepCursor,
        executed: MutableMapping[str, int],
        parts: list[Part],
        specs: list[ProductSpec],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.kernels, self.step, self.executed = kernels, step, executed
        self.parts = nn.ModuleList(parts)
        self.specs = chained(specs, dtype_name(dtype))
        self._endings = {dtype_name(dtype): self.specs}

    @cached_property
    def kernel(self) -> str:
        """The name of what it runs, or the names of its parts' if these differ."""
        return " + ".join(dict.fromkeys(self.kernels.name(spec) for spec in self.specs))

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on the device, unpacked to int8."""
        return sum(part.weight.numel() for part in cast("list[Part]", list(self.parts)))

    def _products(self, x: Tensor, size: tuple[int, int], *, planes: bool) -> Tensor:
        """`[rows, C_out]`: the sum over parts, in x's type; the bias is in the first.

        Args:
            x: `[B, C, L]` when `planes`, else `[M, C]`.
            size: height and width of an image; a linear layer does not look at it.
        """
        y: Tensor | None = None
        out = dtype_name(x.dtype)
        if out not in self._endings:
            self._endings[out] = chained(self.specs, out)
        for number, spec in enumerate(self._endings[out]):
            part = self._part(number)
            code = self.kernels.quantize(
                part.spec(x, planes=planes), x, self.step.index, part.inverse, part.zero_point
            )
            y = self._product(number, spec, code, size, y)
        self.executed[self.kernel] = self.executed.get(self.kernel, 0) + 1
        assert y is not None
        return y

    def _product(
        self,
        number: int,
        spec: ProductSpec,
        code: Tensor,
        size: tuple[int, int],  # noqa: ARG002
        partial: Tensor | None,
    ) -> Tensor:
        """`[rows, C_out]` of one part's codes with channels last."""
        factors = self._part(number).factors(self.step.index)
        additions = Additions(partial=partial)
        found: Tensor = self.kernels.linear(spec, code.view(-1, code.shape[-1]), factors, additions)
        return found

    def _part(self, number: int) -> Part:
        return cast(Part, self.parts[number])


class CudaLinear(_CudaLayer):
    """An int8 linear layer of `[..., C_in]`.

    Args:
        kernels: `Kernels` or `ReferenceKernels`.
        tiles: one per part.
        dtype: of the network; inputs of another type compile again.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        kernels: Any,
        step: StepCursor,
        executed: MutableMapping[str, int],
        *,
        tiles: list[Tile],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        parts = []
        for number, part in enumerate(layer.parts):
            weight = int8_weight(part).to(torch.int8)
            weight = F.pad(weight, (0, padded(weight.shape[1]) - weight.shape[1]))
            parts.append(Part(part, weight, layer.bias if number == 0 else None, device))
        specs = linear_specs(parts, tiles)
        super().__init__(kernels, step, executed, parts, specs, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C_out]` in x's type."""
        if x.dim() == 3 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous():
            # As attention passes its input.
            y = self._products(x.transpose(1, 2), (1, 1), planes=True)
        else:
            y = self._products(x.reshape(-1, x.shape[-1]).contiguous(), (1, 1), planes=False)
        return y.view(*x.shape[:-1], y.shape[-1])


class CudaConv2d(_CudaLayer):
    """An int8 convolution of `[B, C_in, H, W]`; gives channels last, in its input's type.

    Args:
        kernels, tiles, dtype: as in `CudaLinear`.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        geometry: Geometry,
        kernels: Any,
        step: StepCursor,
        executed: MutableMapping[str, int],
        *,
        tiles: list[Tile],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        parts = []
        for number, part in enumerate(layer.parts):
            taps = int8_weight(part).to(torch.int8).permute(0, 2, 3, 1)
            taps = F.pad(taps, (0, padded(taps.shape[3]) - taps.shape[3]))
            weight = taps.reshape(len(taps), -1)
            parts.append(Part(part, weight, layer.bias if number == 0 else None, device))
        if geometry.pointwise:
            specs = linear_specs(parts, tiles)
        else:
            specs = conv_specs(parts, tiles, geometry, kernels.gathers)
        super().__init__(kernels, step, executed, parts, specs, dtype)
        self.geometry = geometry
        self._borders: dict[tuple[int, int], tuple[Tensor, list[Tensor]]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_out, H', W']` in x's type."""
        size = (x.shape[2], x.shape[3])
        if x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
            y = self._products(x.flatten(2), size, planes=True)
        else:
            rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).contiguous()
            y = self._products(rows, size, planes=False)
        shape = (x.shape[0], *self.geometry.output(size), y.shape[-1])
        return y.view(shape).permute(0, 3, 1, 2)

    def borders(self, size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
        """The table of positions and each part's border sums for an input of `size`, on the device.

        Made when a size is first seen, so before a CUDA graph is captured.
        """
        if size not in self._borders:
            device, sums = self._part(0).weight.device, []
            for number in range(len(self.parts)):
                weight = self._part(number).weight.cpu()
                taps = weight.view(len(weight), *self.geometry.kernel, -1).permute(0, 3, 1, 2)
                sums.append(border_sums(taps, self.geometry, size).to(device))
            self._borders[size] = (positions(self.geometry, size).to(device), sums)
        return self._borders[size]

    def _product(
        self,
        number: int,
        spec: ProductSpec,
        code: Tensor,
        size: tuple[int, int],
        partial: Tensor | None,
    ) -> Tensor:
        if isinstance(spec, LinearSpec):
            return super()._product(number, spec, code, size, partial)
        place, sums = self.borders(size)
        factors = self._part(number).factors(self.step.index, sums=sums[number], positions=place)
        found: Tensor = self.kernels.conv2d(
            spec, code.view(-1, *size, code.shape[-1]), factors, Additions(partial=partial)
        )
        return found
