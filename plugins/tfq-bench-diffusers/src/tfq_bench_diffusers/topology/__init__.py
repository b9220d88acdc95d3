"""The topology of any diffusers network, found by following its data through one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfq_bench.quant import trace_topology
from tfq_bench_diffusers.topology.roles import find_temporal, role_of
from tfq_bench_diffusers.topology.trace import run_on_meta, trace_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from tfq_bench import api

__all__ = ["diffusers_topology"]


def diffusers_topology(network: nn.Module, inputs: Mapping[str, Any]) -> api.Topology:
    """Layers, blocks, temporal modules and split points of `network`, in execution order.

    No names of networks or layers enter. The network runs on tensors without values, so this
    takes no memory and little time whatever its size, and leaves it as it is. Which of its inputs
    each tensor depends on tells the time MLP, time projections and condition from the rest; what
    a layer is for otherwise follows from the diffusers modules that hold it. Blocks are the units
    that the network repeats, see `find_units`.

    Args:
        network: on any device, the meta device included.
        inputs: keyword arguments of its `forward` for ONE image, on any device; values do not
            matter. The first argument of `forward` is the state x_t, `timestep` is t, every other
            tensor is a condition, also in nested mappings.

    Raises:
        QuantizationError: no state or timestep among the inputs, the network's course depends on
            values, it multiplies with a weight that is in no Conv2d or Linear, or its prediction
            cannot be followed back to state and timestep.
    """
    trace = trace_network(network, inputs)
    modules = dict(network.named_modules())
    temporal = find_temporal(trace, modules)
    splits = {name: layer.split for name, layer in trace.layers.items() if layer.split is not None}
    return trace_topology(
        network,
        lambda net: run_on_meta(net, inputs),
        lambda name, _: role_of(name, trace, temporal, modules),
        lambda name: trace.layers[name].unit or name,
        splits=splits,
        float_types=trace.tables,
        time_features=temporal.features,
    )
