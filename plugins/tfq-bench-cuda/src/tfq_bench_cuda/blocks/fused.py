"""What every fused block has in common: it takes the place of a `forward`, and can be checked.

Between the layers of a fused block values stay in float32 or become codes at once, where the single
layers round to the network's type; so the two differ by rounding, and by codes that this moves
across a border. While somebody watches a layer (a forward hook), the block runs both ways, the two
outputs are held against each other, and the single layers' is what it gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from tfq_bench.api import LoweringError

if TYPE_CHECKING:
    from tfq_bench_cuda.layers import CudaLayer

__all__ = ["LIMIT", "FusedBlock", "Unfusable", "kernel_layer", "needs"]

_Kind = TypeVar("_Kind", bound="CudaLayer")

LIMIT = 2.0**-5
"""Root mean square difference of both ways over that of the output. A wrong row or border is more,
rounding to bfloat16 in between is less for most blocks, and so is attention in int8: it errs by 1
to 4 % of what attention adds to a residual, more only where a few tokens have all the weight."""

ROUNDINGS = 2.0
"""Where rounding moves many codes it may be more than `LIMIT`: then so many times what changes when
the layers' inputs are rounded otherwise."""


class Unfusable(Exception):
    """Why a block runs layer by layer: a sentence without subject, for the record."""


class FusedBlock(ABC):
    """A fused pass, called in the place of `block.forward`.

    Args:
        name: of the block in the network.
        block: a module of diffusers whose quantized layers are `CudaLayer`s already.
        layers: those that the pass runs, without those of blocks inside it.

    Attributes:
        remarks: sentences for the record: what it could not do.

    Raises:
        Unfusable: by subclasses, when the block is built in a way that the pass does not know.
    """

    remarks: tuple[str, ...] = ()

    def __init__(self, name: str, block: nn.Module, layers: Sequence[CudaLayer]) -> None:
        self.name, self.block, self.layers = name, block, tuple(layers)
        self._single: Callable[..., Any] = block.forward

    def install(self) -> None:
        """Takes the place of the block's `forward`."""
        self.block.forward = self  # type: ignore[assignment]

    @property
    def watched(self) -> bool:
        """Whether somebody looks at one of its layers."""
        return any(layer._forward_hooks or layer._forward_pre_hooks for layer in self.layers)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the block's `forward` takes and gives."""
        if not self.watched:
            return self.fused(*args, **kwargs)

        def single() -> Any:
            return self._single(*args, **kwargs)

        expected = single()
        self._check(expected, self.fused(*args, **kwargs), single)
        return expected

    @abstractmethod
    def fused(self, *args: Any, **kwargs: Any) -> Any:
        """The fused pass."""

    def _check(self, expected: Any, found: Any, single: Callable[[], Any]) -> None:
        """Nothing, when `found` is what the layers give one by one, as `single` does again."""
        relative = self._apart(expected, found)
        if relative <= LIMIT:
            return
        with _rounded_otherwise(self.layers):
            limit = max(LIMIT, ROUNDINGS * self._apart(expected, single()))
        if not relative <= limit:
            raise LoweringError(
                f"block '{self.name}': fused, its output is {relative:.3g} of its size away from "
                f"that of its layers one by one, more than {limit:.3g}. Set the backend's option "
                "'attention' to '16-bit' if it is 'int8'; else set 'blocks' to false, and report "
                "card, driver and TileLang version.",
                expected=limit,
                found=relative,
            )

    def _apart(self, first: Any, second: Any) -> float:
        """Root mean square of the difference over that of the first."""
        expected, found = _tensor(first), _tensor(second)
        if expected.shape != found.shape or expected.dtype != found.dtype:
            raise LoweringError(
                f"block '{self.name}': fused, it gives {found.dtype} {tuple(found.shape)}; "
                f"expected {expected.dtype} {tuple(expected.shape)}, as its layers give one by one."
            )
        difference = (found.double() - expected.double()).square().mean().sqrt()
        size = expected.double().square().mean().sqrt()
        return float(difference / size) if float(size) else float(difference)


def kernel_layer(block: nn.Module, name: str, kind: type[_Kind]) -> _Kind:
    """The block's layer of that name, such as `conv1` or `to_out.0`.

    Raises:
        Unfusable: it runs no int8 kernel of this kind.
    """
    layer = block.get_submodule(name)
    if not isinstance(layer, kind):
        raise Unfusable(f"layer '{name}' has no int8 kernel, it is a {type(layer).__name__}")
    return layer


def needs(holds: bool, reason: str) -> None:
    """Nothing when a condition holds, else `Unfusable` with the reason."""
    if not holds:
        raise Unfusable(reason)


def _tensor(output: Any) -> Tensor:
    """The tensor of what a block gives: itself, or the first of a tuple."""
    found = output if isinstance(output, Tensor) else output[0]
    assert isinstance(found, torch.Tensor)
    return found


@contextmanager
def _rounded_otherwise(layers: Sequence[CudaLayer]) -> Iterator[None]:
    """While it lasts, inputs of `layers` differ by up to the rounding of their type, unwatched."""
    kept = [(layer, layer._forward_hooks, layer._forward_pre_hooks) for layer in layers]
    generator = torch.Generator().manual_seed(0)

    def otherwise(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        share = torch.rand(x.shape, generator=generator).to(x.device) * 2 - 1
        moved = x.float() * (1 + share * (torch.finfo(x.dtype).eps / 2))
        return (moved.to(x.dtype), *inputs[1:])

    try:
        for layer, _, _ in kept:
            layer._forward_hooks, layer._forward_pre_hooks = OrderedDict(), OrderedDict()
            layer.register_forward_pre_hook(otherwise)
        yield
    finally:
        for layer, after, before in kept:
            layer._forward_hooks, layer._forward_pre_hooks = after, before
