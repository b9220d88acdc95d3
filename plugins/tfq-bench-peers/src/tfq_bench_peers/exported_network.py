"""A network as the graph that torch exports: for any number of rows, with its layers by name.

Passes over such a graph fuse and reorder what was a module. What stays of a quantized layer, under
the name that it had, are the scales of its weights; by these its product is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tfq_bench.api import timestep_tensor
from tfq_bench_peers.network_call import EngineNetwork, NetworkCall
from tfq_bench_peers.torch_layers import PRODUCTS

if TYPE_CHECKING:
    from tfq_bench.api import LoadedModel

__all__ = ["Exported", "GraphNetwork", "exported", "products", "weight_scales"]

ROWS = 2
"""Of the example; one row would be taken for a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A network's graph and what it is called with.

    Args:
        graph: takes the tensors of `call`, any number of rows, and returns a tuple.
        call: how the model calls its network.
        example: such tensors for two rows.
        rows: of each of them, the dimensions that follow the number of rows.
    """

    graph: GraphModule
    call: NetworkCall
    example: tuple[Tensor, ...]
    rows: tuple[tuple[int, ...], ...]

    def marked(self) -> tuple[Tensor, ...]:
        """The example as a strict export without `dynamic_shapes` takes it for any number of rows.

        Seen with torch 2.13 and 2.14; torch itself takes the marks off where it has used them.
        """
        found = tuple(tensor.clone() for tensor in self.example)
        for tensor, axes in zip(found, self.rows, strict=True):
            for axis in axes:
                torch._dynamo.mark_dynamic(tensor, axis)
        return found


@torch.no_grad()
def exported(loaded: LoadedModel) -> Exported:
    """The graph shares the weights of `loaded.network`, which is left as it is.

    Raises:
        RuntimeError: torch's own, when the network is no graph for any number of rows.
    """
    model, device = loaded.model, loaded.device
    call = NetworkCall(loaded)
    x = torch.zeros(ROWS, *model.latent_shape, device=device)
    t = timestep_tensor(loaded.sampler.timesteps[0], ROWS, device)
    example = call.captured(loaded, x, t, model.conditions(range(ROWS), device=device))
    rows = tuple(
        tuple(axis for axis, size in enumerate(two.shape) if size != one.shape[axis])
        for one, two in zip(call.inputs, example, strict=True)
    )
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in rows)
    program = torch.export.export(call.traced, example, dynamic_shapes=(shapes,))
    return Exported(graph=program.module(), call=call, example=example, rows=rows)


def weight_scales(converted: GraphModule, layers: Iterable[str]) -> dict[str, str]:
    """The layer, by the attribute of the graph that holds the scales of its weights."""
    known, found = set(layers), {}
    for node in converted.graph.nodes:
        if not _product(node):
            continue
        path = next(reversed(node.meta["nn_module_stack"].values()))[0]
        layer = path.removeprefix("network.")
        weight = node.args[1]
        if layer in known and "dequantize_per_channel" in str(weight.target):
            found[weight.args[1].target] = layer
    return found


def products(lowered: GraphModule, scales: dict[str, str]) -> dict[str, str]:
    """The operator that each layer's product ends in: `onednn::qconv_pointwise`, `aten::bmm`.

    Of a layer that is called several times, one in float where there is one.

    Args:
        scales: what `weight_scales` found before the graph was lowered.
    """
    found: dict[str, str] = {}
    for node in lowered.graph.nodes:
        layer = scales.get(node.target) if node.op == "get_attr" else None
        if layer is None:
            continue
        for operator in _users(node):
            if not found.get(layer, "").startswith("aten"):
                found[layer] = operator
    return found


class GraphNetwork(EngineNetwork):
    """Called like the torch network that was exported.

    Args:
        run: the graph. kernels: of each layer.
        call, counts, like: see `EngineNetwork`.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        call: NetworkCall,
        *,
        kernels: list[str],
        counts: dict[str, int],
        like: Tensor,
    ) -> None:
        super().__init__(call, counts=counts, like=like)
        self._run, self.kernels = run, kernels

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the torch network would return for these arguments."""
        return self.answer(self._run(*self._call.tensors(args, kwargs)))


def _users(node: Node) -> list[str]:
    """Products that a weight goes into, through what only reshapes or dequantizes it."""
    found = []
    for user in node.users:
        product = _product(user)
        found += [product] if product else _users(user)
    return found


def _product(node: Node) -> str | None:
    """Name of the operator, without its overload, when it multiplies."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    operator = node.target.name().partition(".")[0]
    space, _, name = operator.partition("::")
    multiplies = name.endswith("_pointwise") if space == "onednn" else name in PRODUCTS
    return operator if multiplies else None
