"""Modules that stand in for `nn.Conv2d` and `nn.Linear` and run the int8 kernels.

What does not depend on the input is done when a layer is made, on the device, see `weights`. A call
quantizes its input with the parameters of the current sampler step and runs one product per part.
Fused blocks do the two apart: they get the codes from elsewhere, and end the product as they need
it. Nothing is read on the host, so a step can be captured in a CUDA graph.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tfq_bench.api import StepCursor
from tfq_bench_cuda.kernels.borders import Geometry, border_sums, positions
from tfq_bench_cuda.kernels.operands import NOTHING, Additions
from tfq_bench_cuda.kernels.specs import Ending, LinearSpec, ProductSpec
from tfq_bench_cuda.parts import Part, conv_spec, dtype_name, linear_spec
from tfq_bench_cuda.weights import make_weight

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedLayer
    from tfq_bench_cuda.kernels.norms import Table
    from tfq_bench_cuda.kernels.tiles import TileChoice
    from tfq_bench_cuda.kernels.unpack import Scratch
    from tfq_bench_cuda.weights import Weight

__all__ = ["CudaConv2d", "CudaLayer", "CudaLinear"]


class CudaLayer(nn.Module, ABC):
    """What both kinds share: parts, the chain of their products, and the count of calls.

    Args:
        kernels: `Kernels` or `ReferenceKernels`.
        executed: its entry of a kernel's name is incremented at each product.
        tiles: chooses the tile of each product.
        dtype: of the network; inputs of another type compile again.
        scratch: packs weights that fit in 4 bits, and is where they are unpacked to.

    Attributes:
        single: how its product ends when the layer runs by itself.
        runs: how it ends in the network; a fused block sets it.
        formed_by: the products that do it then, if these are not its own; a fused block sets it.
        named: what does it then, where that is no product of `kernels`.
        sizes: height and width of each input that a convolution has seen.
    """

    def __init__(
        self,
        kernels: Any,
        step: StepCursor,
        executed: MutableMapping[str, int],
        parts: list[Part],
        tiles: TileChoice,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.kernels, self.step, self.executed, self.tiles = kernels, step, executed, tiles
        self.parts = nn.ModuleList(parts)
        self.single = self.runs = Ending(out=dtype_name(dtype))
        self.formed_by: Callable[[Ending], Sequence[ProductSpec]] | None = None
        self.named = ""
        self.sizes: set[tuple[int, int]] = set()
        self._specs: dict[Ending, list[ProductSpec]] = {}
        self._names: dict[Ending, str] = {}

    @property
    def kernel(self) -> str:
        """The name of what it runs, or the names of its parts' if these differ."""
        return self.named or self._joined_names(self.running)

    @property
    def running(self) -> Sequence[ProductSpec]:
        """What it runs in the network, to be compiled before."""
        if self.named:
            return ()
        return self.specs(self.runs) if self.formed_by is None else self.formed_by(self.runs)

    @property
    def tables(self) -> list[Table]:
        """How each part's codes are made, for the calls of `kernels.norms`."""
        return [part.table for part in self._parts()]

    @property
    def steady(self) -> bool:
        """Whether it quantizes alike at every step."""
        return all(
            bool((table == table[0]).all())
            for part in self._parts()
            for table in (part.scale, part.zero_point)
        )

    def kernel_of(self, ending: Ending) -> str:
        """The name of what runs when its product ends so."""
        if ending not in self._names:
            self._names[ending] = self._joined_names(self.specs(ending))
        return self._names[ending]

    @property
    def weights(self) -> list[Weight]:
        """Each part's."""
        return [part.stored for part in self._parts()]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on the device."""
        return sum(weight.stored.nbytes for weight in self.weights)

    def specs(self, ending: Ending) -> list[ProductSpec]:
        """A product per part: each adds to the one before, only the last has the whole ending."""
        if ending not in self._specs:
            last = len(self.parts) - 1
            self._specs[ending] = [
                self._spec(
                    part,
                    replace(ending, partial=number > 0)
                    if number == last
                    else Ending(partial=number > 0),
                )
                for number, part in enumerate(self._parts())
            ]
        return self._specs[ending]

    def codes(self, x: Tensor, *, planes: bool) -> list[Tensor]:
        """Each part's int8 codes of an input, channels last.

        Args:
            x: `[B, C, L]` when `planes`, else `[M, C]`.
        """
        return [
            self.kernels.quantize(
                part.spec(x, planes=planes), x, self.step.index, part.inverse, part.zero_point
            )
            for part in self._parts()
        ]

    def product(
        self,
        codes: Sequence[Tensor],
        ending: Ending,
        additions: Additions = NOTHING,
        *,
        size: tuple[int, int] = (1, 1),
    ) -> Tensor:
        """`[rows, C_out]` of the parts' codes, ended as asked; the bias is in the first part.

        Args:
            codes: int8, one per part, `[..., padded channels]`, rows in order.
            size: height and width of an image; a linear layer does not look at it.
        """
        y: Tensor | None = None
        for number, (spec, code) in enumerate(zip(self.specs(ending), codes, strict=True)):
            given = additions if number == len(codes) - 1 else NOTHING
            y = self._product(number, spec, code, replace(given, partial=y), size)
        name = self.kernel_of(ending)
        self.executed[name] = self.executed.get(name, 0) + 1
        assert y is not None
        return y

    @abstractmethod
    def _spec(self, part: Part, ending: Ending) -> ProductSpec:
        """The product of a part that ends so."""

    def _product(
        self,
        number: int,
        spec: ProductSpec,
        code: Tensor,
        additions: Additions,
        size: tuple[int, int],  # noqa: ARG002
    ) -> Tensor:
        """`[rows, C_out]` of one part's codes with channels last."""
        factors = self._parts()[number].factors(self.step.index)
        found: Tensor = self.kernels.linear(
            spec, code.reshape(-1, code.shape[-1]), factors, additions
        )
        return found

    def _joined_names(self, specs: Sequence[ProductSpec]) -> str:
        return " + ".join(dict.fromkeys(self.kernels.name(spec) for spec in specs))

    def _parts(self) -> list[Part]:
        return cast("list[Part]", list(self.parts))


class CudaLinear(CudaLayer):
    """An int8 linear layer of `[..., C_in]`; see `CudaLayer`."""

    def __init__(
        self,
        layer: QuantizedLayer,
        kernels: Any,
        step: StepCursor,
        executed: MutableMapping[str, int],
        *,
        tiles: TileChoice,
        device: torch.device,
        dtype: torch.dtype,
        scratch: Scratch | None = None,
    ) -> None:
        parts = _parts(layer, device, scratch)
        super().__init__(kernels, step, executed, parts, tiles, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C_out]` in x's type."""
        ending = Ending(out=dtype_name(x.dtype))
        if x.dim() == 3 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous():
            # As attention passes its input.
            codes = self.codes(x.transpose(1, 2), planes=True)
        else:
            codes = self.codes(x.reshape(-1, x.shape[-1]).contiguous(), planes=False)
        y = self.product(codes, ending)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _spec(self, part: Part, ending: Ending) -> ProductSpec:
        return linear_spec(part, ending, self.tiles)


class CudaConv2d(CudaLayer):
    """An int8 convolution of `[B, C_in, H, W]`; gives channels last, in its input's type."""

    def __init__(
        self,
        layer: QuantizedLayer,
        geometry: Geometry,
        kernels: Any,
        step: StepCursor,
        executed: MutableMapping[str, int],
        *,
        tiles: TileChoice,
        device: torch.device,
        dtype: torch.dtype,
        scratch: Scratch | None = None,
    ) -> None:
        parts = _parts(layer, device, scratch)
        super().__init__(kernels, step, executed, parts, tiles, dtype)
        self.geometry = geometry
        self._borders: dict[tuple[int, int], tuple[Tensor, list[Tensor]]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_out, H', W']` in x's type."""
        size = (x.shape[2], x.shape[3])
        y = self.product(self.image_codes(x), Ending(out=dtype_name(x.dtype)), size=size)
        shape = (x.shape[0], *self.geometry.output(size), y.shape[-1])
        return y.view(shape).permute(0, 3, 1, 2)

    def image_codes(self, x: Tensor) -> list[Tensor]:
        """Each part's int8 codes `[..., padded channels]` of `[B, C_in, H, W]`, pixels in order."""
        if x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
            return self.codes(x.flatten(2), planes=True)
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).contiguous()
        return self.codes(rows, planes=False)

    def with_geometry(self, geometry: Geometry) -> CudaConv2d:
        """The same weights and tables, walked over another way."""
        other = copy.copy(self)
        other.geometry = geometry
        other._specs, other._names, other._borders = {}, {}, {}
        return other

    def borders(self, size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
        """The table of positions and each part's border sums for an input of `size`, on the device.

        Made when a size is first seen, so before a CUDA graph is captured.
        """
        if size not in self._borders:
            self.sizes.add(size)
            parts = self._parts()
            device, sums = parts[0].bias.device, []
            for part in parts:
                weight = part.weight
                taps = weight.view(len(weight), *self.geometry.kernel, -1).permute(0, 3, 1, 2)
                sums.append(border_sums(taps, self.geometry, size).to(device))
            self._borders[size] = (positions(self.geometry, size).to(device), sums)
        return self._borders[size]

    def _spec(self, part: Part, ending: Ending) -> ProductSpec:
        if self.geometry.pointwise:
            return linear_spec(part, ending, self.tiles)
        return conv_spec(part, ending, self.tiles, self.geometry, self.kernels.gathers)

    def _product(
        self,
        number: int,
        spec: ProductSpec,
        code: Tensor,
        additions: Additions,
        size: tuple[int, int],
    ) -> Tensor:
        if isinstance(spec, LinearSpec):
            return super()._product(number, spec, code, additions, size)
        place, sums = self.borders(size)
        factors = self._parts()[number].factors(self.step.index, sums=sums[number], positions=place)
        found: Tensor = self.kernels.conv2d(
            spec, code.reshape(-1, *size, code.shape[-1]), factors, additions
        )
        return found


def _parts(layer: QuantizedLayer, device: torch.device, scratch: Scratch | None) -> list[Part]:
    """The parts of a `moved` layer, the bias in the first."""
    return [
        Part(part, make_weight(part, scratch), None if number else layer.bias, device)
        for number, part in enumerate(layer.parts)
    ]
