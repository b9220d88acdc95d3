"""The products of a network: every shape that one call has, and how often.

Found by watching a call, so no list is kept here. Linear layers under one parent that read the same
tensor (queries, keys and values) are one product, as the fused pass runs them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tfq_bench.quant import find_layer
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.specs import Ending

ENDINGS = (
    (r"\.ff\.net\.0\.proj$", Ending(activation="geglu", out="int8")),
    (r"\.resnets\.\d+\.conv1$", Ending(shift=True, out="bfloat16")),
    (r"\.resnets\.\d+\.conv2$", Ending(residual="bfloat16", out="bfloat16")),
    (r"\.(attn\d\.to_out\.0|ff\.net\.2|proj_out)$", Ending(residual="bfloat16", out="bfloat16")),
)
"""By the layer's name in a U-Net of diffusers: what the fused pass does with the sum."""

PLAIN = Ending(out="bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One product.

    Args:
        rows: of the result. n, k: weights' rows and terms of a sum; `geglu` halves the outputs.
        images: that the rows belong to.
        size: of a convolution's input, pixels; None for a linear layer.
        geometry: of a convolution that is not pointwise.
        joined: how many layers it is made of.
    """

    rows: int
    n: int
    k: int
    images: int
    ending: Ending
    size: tuple[int, int] | None = None
    geometry: Geometry | None = None
    joined: int = 1

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.n * self.k

    def __str__(self) -> str:
        words = f"{self.rows}x{self.n}x{self.k}"
        if self.size is not None and self.geometry is not None:
            channels = self.k // (self.geometry.kernel[0] * self.geometry.kernel[1])
            stride = f" /{self.geometry.stride[0]}" if self.geometry.stride[0] > 1 else ""
            kernel = "x".join(map(str, self.geometry.kernel))
            words = f"{kernel} {channels}->{self.n} @{self.size[0]}x{self.size[1]}{stride}"
        if self.joined > 1:
            words += f" ({self.joined} layers)"
        return f"{words} {self.ending}".rstrip()


def watched_shapes(
    network: nn.Module, layers: list[str], call: Callable[[], Any], *, endings: bool
) -> Counter[Shape]:
    """The shapes of one call, and how often each is run.

    Args:
        layers: names of the convolutions and linear layers that are looked at.
        endings: whether to give products the endings of `ENDINGS`; else all are `PLAIN`.
    """
    seen: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    handles = [
        find_layer(network, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.append((name, module, inputs[0], output))
        )
        for name in layers
    ]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    products: dict[tuple[str, int], list[tuple[str, nn.Module, Tensor, Tensor]]] = {}
    for one in seen:  # `seen` keeps the inputs, so that their ids stay theirs
        key = (one[0].rpartition(".")[0], id(one[2]))
        if not isinstance(one[1], nn.Linear):
            key = (one[0], len(products))
        products.setdefault(key, []).append(one)
    return Counter(_shape(some, endings) for some in products.values())


def ending_of(name: str) -> Ending:
    """What the fused pass does with the sums of the layer called `name`."""
    return next((ending for text, ending in ENDINGS if re.search(text, f".{name}")), PLAIN)


def _shape(layers: list[tuple[str, nn.Module, Tensor, Tensor]], endings: bool) -> Shape:
    name, module, x, y = layers[0]
    ending = ending_of(name) if endings and len(layers) == 1 else PLAIN
    if isinstance(module, nn.Linear):
        return Shape(
            rows=y.numel() // y.shape[-1],
            n=sum(one.weight.shape[0] for _, one, _, _ in layers),
            k=x.shape[-1],
            images=len(x),
            ending=ending,
            joined=len(layers),
        )
    assert isinstance(module, nn.Conv2d)
    geometry = Geometry(
        kernel=module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
    )
    return Shape(
        rows=y.numel() // y.shape[1],
        n=y.shape[1],
        k=module.weight[0].numel(),
        images=len(x),
        ending=ending,
        size=None if geometry.pointwise else (x.shape[2], x.shape[3]),
        geometry=None if geometry.pointwise else geometry,
    )
