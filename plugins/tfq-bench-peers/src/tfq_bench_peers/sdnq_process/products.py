"""Which product each layer of a network ends in, seen below its operators in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["products_of"]

PRODUCTS = ("mm", "addmm", "bmm", "linear", "convolution", "conv2d")


@torch.no_grad()
def products_of(
    network: nn.Module, names: Iterable[str], call: Callable[[], Any]
) -> dict[str, tuple[str, list[int]]]:
    """By layer the last product, `aten::mm float32 x float32`, and the bits of its operands.

    A layer in which none is seen is left out.

    Args:
        call: calls the network once.
    """
    spy = _Spy()
    hooks = []
    for name in names:
        layer = network.get_submodule(name)
        hooks.append(layer.register_forward_pre_hook(partial(spy.enter, name)))
        hooks.append(layer.register_forward_hook(spy.leave))
    try:
        with spy:
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return spy.found


class _Spy(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.layer: str | None = None
        self.found: dict[str, tuple[str, list[int]]] = {}

    def enter(self, name: str, module: nn.Module, args: Any) -> None:  # noqa: ARG002
        self.layer = name

    def leave(self, module: nn.Module, args: Any, out: Any) -> None:  # noqa: ARG002
        self.layer = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.name().partition(".")[0]
        short = operator.partition("::")[2]
        if self.layer is not None and (short in PRODUCTS or short.endswith("_mm")):
            given = [one.dtype for one in args if isinstance(one, Tensor) and one.dim() > 1][-2:]
            shown = " x ".join(str(dtype).removeprefix("torch.") for dtype in given)
            bits = [8 * dtype.itemsize for dtype in given]
            self.found[self.layer] = f"{operator} {shown}", bits
        return func(*args, **(kwargs or {}))
