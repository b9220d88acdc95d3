"""One run of a network on meta tensors: what each layer reads, and what becomes of its output."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tfq_bench.api import QuantizationError, printable
from tfq_bench.quant import WeightedLayer
from tfq_bench_diffusers.topology.flow import Flow, FlowMode
from tfq_bench_diffusers.topology.meta import (
    call_with,
    meta_inputs,
    meta_tensors,
    named_tensors,
)
from tfq_bench_diffusers.topology.record import LayerTrace, Recorder

__all__ = ["NetworkTrace", "run_on_meta", "trace_network"]

TIME = ("timestep", "timesteps", "t")
"""What the timestep is called among the arguments of `forward`."""

REFUSALS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a network's own code raises on inputs that it does not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTrace:
    """What the run has shown.

    Args:
        state, time: names of the inputs x_t and t; all other inputs are conditions.
        layers: by name, in execution order.
        last: the layers from which the output is made, with no layer in between.
        meetings: see `FlowMode`.
        tables: types of the modules that hold matrices which no product uses.
    """

    state: str
    time: str
    layers: Mapping[str, LayerTrace]
    last: frozenset[str]
    meetings: Mapping[str, set[tuple[frozenset[str], frozenset[str]]]]
    tables: tuple[type[nn.Module], ...]


def run_on_meta(network: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """What the network gives for meta inputs, its parameters replaced by empty ones for the call.

    Shapes are the real ones, but nothing is computed and nothing is allocated.
    """
    with FlowMode():  # it also moves constants that are no buffers
        return call_with(network, meta_tensors(network), meta_inputs(inputs))


@torch.no_grad()
def trace_network(network: nn.Module, inputs: Mapping[str, Any]) -> NetworkTrace:
    """The trace of one call for one image.

    Args:
        inputs: keyword arguments of `network.forward`, on any device; nested tensors are inputs
            of their own, called `outer.inner`.

    Raises:
        QuantizationError: says what was not understood.
    """
    state, time = _state_and_time(network, inputs)
    mode = FlowMode()
    given = meta_inputs(inputs)
    for name, tensor in named_tensors(given).items():
        mode.declare(tensor, Flow(inputs=frozenset({name})))
    held = meta_tensors(network)
    matrices = {name for name, parameter in network.named_parameters() if parameter.dim() > 1}
    for name in matrices:
        mode.declare(held[name], Flow(parameters=frozenset({name})))
    recorder = Recorder(network, mode, state)
    handles = recorder.watch()
    try:
        with mode:
            output = call_with(network, held, given)
    except REFUSALS as error:
        raise QuantizationError(
            f"{type(network).__name__} could not be run on tensors without values. Expected a "
            f"network that takes {sorted(inputs)} in these shapes and whose course does not depend "
            f"on values; found {type(error).__name__}: "
            f"{printable(error, 500)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    _refuse_products(network, mode)
    end = _end(mode, output, state, time, network)
    weights = {f"{name}.weight" for name in recorder.layers}
    return NetworkTrace(
        state=state,
        time=time,
        layers=recorder.traced(),
        last=end.layers,
        meetings=mode.meetings,
        tables=_holders(network, matrices - weights),
    )


def _state_and_time(network: nn.Module, inputs: Mapping[str, Any]) -> tuple[str, str]:
    """Names of x_t, the first argument of `forward`, and of t."""
    title = type(network).__name__
    state = next(iter(inspect.signature(network.forward).parameters), "")
    x = inputs.get(state)
    if not isinstance(x, Tensor) or len(x) != 1:
        found = tuple(x.shape) if isinstance(x, Tensor) else f"{x!r} among {sorted(inputs)}"
        raise QuantizationError(
            f"{title}: expected the state of one image as the first argument of its forward, "
            f"'{state}' of shape (1, ...); found {found}."
        )
    for name in TIME:
        if isinstance(inputs.get(name), Tensor):
            return state, name
    raise QuantizationError(
        f"{title}: expected a tensor with the timestep, called {' or '.join(map(repr, TIME))}; "
        f"found inputs {sorted(inputs)}."
    )


def _refuse_products(network: nn.Module, mode: FlowMode) -> None:
    for name in mode.products:
        holder = network.get_submodule(name.rpartition(".")[0])
        advice = "Its weight would silently stay float; expected Conv2d or Linear."
        if isinstance(holder, WeightedLayer):
            advice = "Expected the layer to be called, so that it can be exchanged."
        raise QuantizationError(
            f"{type(network).__name__} multiplies with '{name}' of shape "
            f"{tuple(network.get_parameter(name).shape)}, which a {type(holder).__name__} holds, "
            f"outside of a layer. {advice}"
        )


def _end(mode: FlowMode, output: Any, state: str, time: str, network: nn.Module) -> Flow:
    """The flow of the prediction, the first tensor of what the network gives."""
    made = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    flow = mode.of(made[0]) if made else Flow()
    missing = [name for name in (state, time) if name not in flow.inputs]
    if missing or not flow.layers:
        raise QuantizationError(
            f"{type(network).__name__}: its prediction could not be followed back to "
            f"{' and '.join(map(repr, missing)) or 'any layer'}; found that it depends on "
            f"{sorted(flow.inputs)} and was last made by {sorted(flow.layers)}."
        )
    return flow


def _holders(network: nn.Module, matrices: set[str]) -> tuple[type[nn.Module], ...]:
    holders = (network.get_submodule(name.rpartition(".")[0]) for name in sorted(matrices))
    found = {type(holder) for holder in holders if not isinstance(holder, WeightedLayer)}
    return tuple(sorted(found, key=lambda one: one.__name__))
