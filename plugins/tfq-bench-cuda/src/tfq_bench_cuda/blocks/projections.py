"""Linear layers of one input, run as the fewest products that their tables allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from torch import Tensor

from tfq_bench_cuda.blocks.joined import Joined, same_codes
from tfq_bench_cuda.layers import CudaLinear

__all__ = ["Projections"]


class Projections:
    """Queries, keys and values: layers that quantize alike are one product.

    Args:
        layers: of the same input. They end as they are said to, `CudaLayer.runs`.

    Attributes:
        first: a layer of each product, which say how the input's codes are made.
        tables: theirs, one per product, or per part of a split layer.
    """

    def __init__(self, layers: Sequence[CudaLinear]) -> None:
        self.layers = tuple(layers)
        self._groups: list[list[CudaLinear]] = []
        for layer in layers:
            alike = [group for group in self._groups if same_codes([group[0], layer])]
            if alike:
                alike[0].append(layer)
            else:
                self._groups.append([layer])
        self._joined = [Joined(group) if len(group) > 1 else None for group in self._groups]
        self.first = tuple(group[0] for group in self._groups)
        self.tables = [table for layer in self.first for table in layer.tables]

    def __call__(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """`[M, C_out]` of each layer, in their order; those of one product are views of it.

        Args:
            codes: int8 `[..., padded channels]` for each of `tables`, M rows in order.
        """
        found, left = {}, iter(codes)
        for group, joined in zip(self._groups, self._joined, strict=True):
            given = list(islice(left, len(group[0].parts)))
            ending = group[0].runs
            if joined is None:
                found[group[0]] = group[0].product(given, ending)
                continue
            (code,) = given
            together = joined.product(code.reshape(-1, code.shape[-1]), ending)
            widths = [layer.weights[0].shape[0] for layer in group]
            found.update(zip(group, together.split(widths, dim=1), strict=True))
        return [found[layer] for layer in self.layers]
