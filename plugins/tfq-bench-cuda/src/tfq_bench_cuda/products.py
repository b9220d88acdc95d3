"""Products of a network by shape: what a search for tiles is about, and what a run tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, ProductSpec, Tile

if TYPE_CHECKING:
    from tfq_bench_cuda.kernels.tiles import TileChoice
    from tfq_bench_cuda.kernels.tuned import Shape
    from tfq_bench_cuda.layers import CudaLayer

__all__ = ["SQUARE", "Product", "describe_products"]

SQUARE = Geometry(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
"""The 3x3 convolution that keeps the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product, without its tile.

    Args:
        rows: of the result, for the number of images that is expected.
        outputs: channels of the result; a GEGLU has twice as many rows of weights.
        inputs: input channels of a tap, filled up to a multiple of 32.
        geometry: of a convolution; None for a matrix product.
        size: height and width of a convolution's input, pixels.
    """

    rows: int
    outputs: int
    inputs: int
    ending: Ending
    geometry: Geometry | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if min(self.rows, self.outputs, self.inputs) < 1 or self.inputs % 32:
            raise ValueError(f"{self.rows} rows, {self.outputs} outputs, {self.inputs} inputs")
        if (self.geometry is None) != (self.size is None) or (
            self.geometry is not None and self.rows % self.pixels
        ):
            raise ValueError(f"{self.rows} rows of a convolution of {self.size} pixels")

    @property
    def taps(self) -> int:
        """Of the filter."""
        return 1 if self.geometry is None else self.geometry.kernel[0] * self.geometry.kernel[1]

    @property
    def sums(self) -> int:
        """Sums that an output is made of."""
        return 2 if self.ending.activation == "geglu" else 1

    @property
    def shape(self) -> Shape:
        """What a tile is found by."""
        return (self.rows, self.outputs, self.inputs, self.taps, self.sums)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.outputs * self.inputs * self.taps * self.sums

    @property
    def pixels(self) -> int:
        """Of a convolution's output image."""
        assert self.geometry is not None
        assert self.size is not None
        return _pixels(self.geometry, self.size)

    def tile(self, choice: TileChoice) -> Tile:
        """The tile that is chosen for it now."""
        return choice(self.outputs, self.inputs, self.ending, taps=self.taps)

    def spec(self, tile: Tile, *, gathers: bool) -> ProductSpec:
        """The kernel with a tile; `gathers` as of `Kernels`."""
        if self.geometry is None:
            return LinearSpec(n=self.outputs, k=self.inputs, ending=self.ending, tile=tile)
        return ConvSpec(
            n=self.outputs,
            c=self.inputs,
            geometry=self.geometry,
            gather=gathers or not self.geometry.centred,
            ending=self.ending,
            tile=tile,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for a lower stage's result."""
        return {**asdict(self), "size": self.size and list(self.size), "taps": self.taps}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Product:
        """What `to_json` gave; KeyError, TypeError or ValueError when it did not."""
        geometry, size = value["geometry"], value["size"]
        return cls(
            **{name: _whole(value[name]) for name in ("rows", "outputs", "inputs")},
            ending=Ending(**value["ending"]),
            geometry=geometry
            and Geometry(**{name: _pair(numbers) for name, numbers in geometry.items()}),
            size=size and _pair(size),
        )

    def __str__(self) -> str:
        words = f"{self.rows}x{self.outputs}x{self.inputs}"
        if self.geometry is not None and self.size is not None:
            kernel, stride = self.geometry.kernel, self.geometry.stride
            words = (
                f"{kernel[0]}x{kernel[1]} {self.inputs}->{self.outputs} "
                f"@{self.size[0]}x{self.size[1]}{f' /{stride[0]}' if max(stride) > 1 else ''} "
                f"x{self.rows // self.pixels}"
            )
        return f"{words} {self.ending}".rstrip()


def describe_products(layers: Iterable[CudaLayer]) -> list[dict[str, Any]]:
    """Each product that layers run in their network: its shape, its tile, how many there are.

    Convolutions that were never called are left out, because nobody knows the size of their image.
    """
    counts: dict[tuple[Product, Tile], int] = {}
    seen: dict[int, ProductSpec] = {}
    for layer in layers:
        for spec in layer.running:
            if id(spec) in seen:  # layers that are joined share one product
                continue
            seen[id(spec)] = spec
            for product in _products(spec, layer):
                counts[product, spec.tile] = counts.get((product, spec.tile), 0) + 1
    return [
        {**product.to_json(), "tile": asdict(tile), "count": count}
        for (product, tile), count in counts.items()
    ]


def _products(spec: ProductSpec, layer: CudaLayer) -> list[Product]:
    rows = layer.tiles.rows
    if isinstance(spec, LinearSpec):
        return [Product(rows=rows, outputs=spec.n, inputs=spec.k, ending=spec.ending)]
    return [
        Product(
            rows=rows,
            outputs=spec.n,
            inputs=spec.c,
            ending=spec.ending,
            geometry=spec.geometry,
            size=size,
        )
        for size in layer.sizes
        if rows % _pixels(spec.geometry, size) == 0
    ][:1]  # images of several sizes have the same rows only where they are alike


def _pixels(geometry: Geometry, size: tuple[int, int]) -> int:
    height, width = geometry.output(size)
    return height * width


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _pair(values: Sequence[Any]) -> tuple[int, int]:
    first, second = values
    return _whole(first), _whole(second)
