"""Layers that read the same codes, run as one product: queries, keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from tfq_bench_cuda.kernels.operands import NOTHING, Additions, Factors
from tfq_bench_cuda.kernels.specs import Ending, LinearSpec
from tfq_bench_cuda.layers import CudaLinear
from tfq_bench_cuda.parts import Part
from tfq_bench_cuda.weights import join

__all__ = ["Joined", "same_codes"]


def same_codes(layers: Sequence[CudaLinear]) -> bool:
    """Whether the layers quantize their input alike, so that one product can serve them all."""
    parts = [cast(Part, layer.parts[0]) for layer in layers]
    first = parts[0]
    return all(len(layer.parts) == 1 for layer in layers) and all(
        part.bits == first.bits
        and part.stored.shape[1] == first.stored.shape[1]
        and torch.equal(part.scale, first.scale)
        and torch.equal(part.zero_point, first.zero_point)
        for part in parts[1:]
    )


class Joined:
    """One product with the layers' weights below each other; the layers' own are views of it.

    Args:
        layers: of which `same_codes` is true; `layers[0]` says where codes come from.
    """

    def __init__(self, layers: Sequence[CudaLinear]) -> None:
        self.layers = tuple(layers)
        parts = [cast(Part, layer.parts[0]) for layer in layers]
        self.first = parts[0]
        self._joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("sums", "weight_scale", "bias")
        }
        self._weight = join([part.stored for part in parts])
        start = 0
        for layer, part in zip(layers, parts, strict=True):
            stop = start + part.stored.shape[0]
            part.stored = self._weight.rows(start, stop)
            layer.formed_by = lambda ending: [self.spec(ending)]
            start = stop
        self._outputs = start
        self._specs: dict[Ending, LinearSpec] = {}

    def spec(self, ending: Ending) -> LinearSpec:
        """The product's."""
        if ending not in self._specs:
            k = self.first.stored.shape[1]
            tile = self.layers[0].tiles(self._outputs, k, ending)
            self._specs[ending] = LinearSpec(n=self._outputs, k=k, ending=ending, tile=tile)
        return self._specs[ending]

    def kernel_of(self, ending: Ending) -> str:
        """The name of what runs."""
        return str(self.layers[0].kernels.name(self.spec(ending)))

    def product(self, code: Tensor, ending: Ending, additions: Additions = NOTHING) -> Tensor:
        """`[M, sum of C_out]` of codes `[M, k]`; counts once for each layer."""
        layer = self.layers[0]
        factors = Factors(
            weight=self._weight.read(),
            step=layer.step.index,
            scale=self.first.scale,
            zero_point=self.first.zero_point,
            **self._joined,
        )
        name = self.kernel_of(ending)
        for one in self.layers:
            one.executed[name] = one.executed.get(name, 0) + 1
        found: Tensor = layer.kernels.linear(self.spec(ending), code, factors, additions)
        return found
