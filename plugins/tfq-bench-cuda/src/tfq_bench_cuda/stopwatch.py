"""Times of one product with a tile on this machine's GPU, as it finds its operands in a network.

There, weights come from memory, because all others were read since, and codes from the second-level
cache, because the kernel before wrote them. So a CUDA graph walks over more copies of the weights
than the cache holds, and its codes stay the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels import selftest
from tfq_bench_cuda.kernels.borders import border_sums, positions
from tfq_bench_cuda.kernels.operands import Additions, Factors, asked
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.kernels.specs import Tile
from tfq_bench_cuda.products import Product

__all__ = ["Stopwatch"]

_BYTES = 160 * 2**20
"""Of the copies of the weights: three times the second-level cache of an H100."""

_LAUNCHES = 20
"""In a graph, at least."""

_MOST_COPIES = 400


class Stopwatch:
    """Compiles kernels and times them.

    Args:
        arch: a value of `tiles.ARCHITECTURES`.
    """

    def __init__(self, arch: str) -> None:
        self.kernels: Any = Kernels(arch, "cuda")
        torch.set_grad_enabled(False)

    def compile(self, tried: Iterable[tuple[Product, Tile]]) -> list[bool]:
        """Whether each compiles, in order."""
        specs = [product.spec(tile, gathers=self.kernels.gathers) for product, tile in tried]
        failed = self.kernels.compile(specs)
        return [spec not in failed for spec in specs]

    def same(self, product: Product, tile: Tile, first: Tile) -> bool:
        """Whether it gives the bits of another tile, of random numbers."""
        found, expected = (self._launch(product, one, 0) for one in (tile, first))
        return bool(torch.equal(found, expected))

    def microseconds(self, product: Product, tiles: Sequence[Tile], rounds: int) -> list[float]:
        """The median of each tile's times, which take turns."""
        graphs = [self._captured(product, tile) for tile in tiles]
        times: list[list[float]] = [[] for _ in tiles]
        for number in range(rounds + 1):
            for turn in range(len(tiles)):
                index = (number + turn) % len(tiles)
                graph, launches = graphs[index]
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graph.replay()
                end.record()
                torch.cuda.synchronize()
                times[index].append(begin.elapsed_time(end) * 1e3 / launches)
        return [statistics.median(some[1:]) for some in times]  # the first round warms up

    def exact(self, product: Product, tile: Tile) -> bool:
        """Whether it passes the self-test that every kernel passes before it is used."""
        spec = product.spec(tile, gathers=self.kernels.gathers)
        self.kernels.compile([spec])
        try:
            selftest.check(self.kernels, spec, torch.device("cuda"))
        except LoweringError:
            return False
        return True

    def _captured(self, product: Product, tile: Tile) -> tuple[torch.cuda.CUDAGraph, int]:
        """A graph of launches with one copy of the weights after the other, and how many."""
        self._launch(product, tile, 0)
        torch.cuda.synchronize()
        launches = max(len(_operands(product)[1]), _LAUNCHES)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for number in range(launches):
                self._launch(product, tile, number)
        return graph, launches

    def _launch(self, product: Product, tile: Tile, number: int) -> Tensor:
        spec = product.spec(tile, gathers=self.kernels.gathers)
        self.kernels.compile([spec])  # from the disk, where another process has done it
        code, factors, additions = _operands(product)
        run = self.kernels.linear if product.geometry is None else self.kernels.conv2d
        found: Tensor = run(spec, code, factors[number % len(factors)], additions)
        return found


@lru_cache(maxsize=1)
def _operands(product: Product, device: str = "cuda") -> tuple[Tensor, list[Factors], Additions]:
    """Codes, the factors with each copy of the weights, and what the ending asks for; random."""
    generator = torch.Generator(device).manual_seed(0)
    like: dict[str, Any] = {"device": device, "generator": generator}
    width, terms = product.outputs * product.sums, product.inputs * product.taps
    copies = min(max(_BYTES // (width * terms), 2), _MOST_COPIES)
    weights = _bytes((copies, width, terms), like)
    if product.geometry is None:
        code = _bytes((product.rows, product.inputs), like)
        sums, places, images = weights[0].sum(1, dtype=torch.int32), None, 1
    else:
        assert product.size is not None
        images = product.rows // product.pixels
        code = _bytes((images, *product.size, product.inputs), like)
        taps = weights[0].view(width, *product.geometry.kernel, -1).permute(0, 3, 1, 2)
        sums = border_sums(taps, product.geometry, product.size).to(device)
        places = positions(product.geometry, product.size).to(device)
    first = Factors(
        weight=weights[0],
        sums=sums,
        positions=places,
        step=torch.zeros(1, dtype=torch.int64, device=device),
        scale=torch.ones(1, device=device),
        zero_point=torch.full((1,), 100, dtype=torch.int32, device=device),
        weight_scale=torch.rand(width, **like) * 1e-4 / terms**0.5,
        bias=torch.randn(width, **like),
    )
    shapes = {"partial": product.rows, "shift": images, "gate": images, "residual": product.rows}
    values = {
        name: torch.randn((rows, product.outputs), **like)
        for name, rows in shapes.items()
        if name in asked(product.ending)
    }
    if product.ending.residual:
        values["residual"] = values["residual"].to(getattr(torch, product.ending.residual))
    if product.ending.out == "int8":
        values["inverse"] = torch.full((1,), 30.0, device=device)
        values["zero_point"] = torch.full((1,), 128, dtype=torch.int32, device=device)
    return code, [replace(first, weight=weight) for weight in weights], Additions(**values)


def _bytes(shape: tuple[int, ...], like: dict[str, Any]) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, **like)
