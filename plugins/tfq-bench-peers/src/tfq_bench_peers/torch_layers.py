"""What the layers of a torch network really multiply, seen while it runs, and counted afterwards.

A tool that swaps tensors or layers says little about which product a layer ends in: bytes, or
float32 after it took its weights apart. One call under a `TorchDispatchMode` sees the operators
below; into those of the tool's own, torch's profiler looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._C import _autograd, _profiler
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.api import FULL_PRECISION, KernelUse, LoweringError, timestep_tensor

if TYPE_CHECKING:
    from tfq_bench.api import LoadedModel

__all__ = ["PRODUCTS", "count_kernels", "kernels_of"]

PRODUCTS = ("mm", "addmm", "bmm", "linear", "convolution", "conv2d")
ATEN = ("aten", "prims", "prim")
"""Namespaces of torch's own operators; others are looked into."""
ROWS = 2

Operands = tuple[torch.dtype, ...]


@torch.no_grad()
def kernels_of(
    loaded: LoadedModel, network: nn.Module, stored_bits: Mapping[str, int]
) -> tuple[KernelUse, ...]:
    """How each layer whose weights are quantized is executed, in the topology's order.

    Args:
        stored_bits: bits of the stored weights, by name of the layer.

    Raises:
        LoweringError: such a layer multiplied nothing that could be seen.
    """
    products: dict[str, list[tuple[str, Operands]]] = {}
    spy = _Spy()
    handles = [
        hook
        for name in stored_bits
        for hook in (
            network.get_submodule(name).register_forward_pre_hook(partial(_enter, spy, name)),
            network.get_submodule(name).register_forward_hook(partial(_leave, spy, products)),
        )
    ]
    try:
        _call(loaded, network, spy)
    finally:
        for handle in handles:
            handle.remove()
    uses = []
    for layer in loaded.topology.layers:
        if layer.name not in stored_bits:
            continue
        if not products.get(layer.name):
            raise LoweringError(
                f"layer '{layer.name}' has quantized weights, and no product was seen in it.",
                layer=layer.name,
            )
        kernel, dtypes = products[layer.name][-1]
        bits = [8 if dtype.itemsize == 1 else 8 * dtype.itemsize for dtype in dtypes]
        low = max(bits) <= 8
        uses.append(
            KernelUse(
                layer=layer.name,
                kernel=kernel,
                wbits=stored_bits[layer.name],
                abits=8 if low else min(max(bits), FULL_PRECISION),
                macs=layer.macs,
                fallback=None if low else _reason(bits),
            )
        )
    return tuple(uses)


def count_kernels(network: nn.Module, uses: Iterable[KernelUse], executed: dict[str, int]) -> None:
    """From now on `executed` counts each layer's kernel when the layer is called."""
    for use in uses:
        network.get_submodule(use.layer).register_forward_hook(
            partial(_count, executed, use.kernel)
        )


class _Spy(TorchDispatchMode):
    """Notes products, and the types of their operands, while `seen` is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = ""
        self.seen: list[tuple[str, Operands]] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [one for one in args if isinstance(one, Tensor)]
        if any(type(one) not in (Tensor, nn.Parameter) for one in tensors):
            return NotImplemented  # the subclass goes on, and its operators come here
        if func.namespace not in ATEN and self.seen is not None:
            out, names = _profiled(func, args, kwargs or {})
            given = tuple(one.dtype for one in tensors)
            self.seen += [_product(name, _operands(name, given)) for name in names]
            return out
        if self.seen is not None and _is_product(func.name()):
            operands = tuple(one.dtype for one in tensors if one.dim() > 1)[-2:]
            self.seen.append(_product(func.name().partition(".")[0], operands))
        return func(*args, **(kwargs or {}))


def _is_product(operator: str) -> bool:
    name = operator.partition("::")[2].partition(".")[0]
    return name in PRODUCTS or name.endswith("_mm") or "pack_mm" in name


def _product(operator: str, operands: Operands) -> tuple[str, Operands]:
    types = " x ".join(str(dtype).removeprefix("torch.") for dtype in operands)
    return f"{operator} {types}", operands


def _operands(operator: str, given: Operands) -> Operands:
    """What a product inside of a tool's operator multiplies, by what that operator was given."""
    if operator == "aten::_int_mm":
        return torch.int8, torch.int8
    wide = next((dtype for dtype in given if dtype.itemsize > 1), torch.float32)
    return (wide, torch.int8) if "int8pack_mm" in operator else (wide, wide)


def _profiled(func: Any, args: Any, kwargs: Any) -> tuple[Any, list[str]]:
    """What an operator returns, and the products that it is made of."""
    # The newer profiler writes to stderr from C++, whatever its log level.
    _autograd._enable_profiler_legacy(
        _profiler.ProfilerConfig(
            _profiler.ProfilerState.CPU,
            False,  # shapes
            False,  # memory
            False,  # stacks
            False,  # operations
            False,  # modules
            _profiler._ExperimentalConfig(),
        )
    )
    try:
        out = func(*args, **kwargs)
    finally:
        threads = _autograd._disable_profiler_legacy()
    names = [event.name() for thread in threads for event in thread if event.kind() == "push"]
    return out, [name for name in names if _is_product(name)]


def _call(loaded: LoadedModel, network: nn.Module, spy: _Spy) -> None:
    model, device = loaded.model, loaded.device
    x = torch.zeros(ROWS, *model.latent_shape, device=device)
    t = timestep_tensor(loaded.sampler.timesteps[0], ROWS, device)
    with spy:
        model.predict(network, x, t, model.conditions(range(ROWS), device=device))


def _enter(spy: _Spy, name: str, module: nn.Module, args: Any) -> None:  # noqa: ARG001
    spy.layer, spy.seen = name, []


def _leave(spy: _Spy, products: dict[str, Any], module: nn.Module, args: Any, out: Any) -> None:  # noqa: ARG001
    products[spy.layer], spy.seen = spy.seen, None


def _count(executed: dict[str, int], kernel: str, module: nn.Module, args: Any, out: Any) -> None:  # noqa: ARG001
    executed[kernel] = executed.get(kernel, 0) + 1


def _reason(bits: list[int]) -> str:
    if min(bits) == 8:
        return f"its weights are bytes, its product is one of {max(bits)} bits"
    return f"its weights are taken apart before a product of {max(bits)} bits"
