"""An OpenVINO graph as the network of a cell: one compiled model a shape, and what each ran.

OpenVINO compiles for static shapes best, so the graph is compiled anew for every number of rows
that it is called with. What is executed is read from the compiled graph: for each layer of the
torch network, whose names the conversion keeps, the implementation and the type it computes in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench.api import LoweringError
from tfq_bench_peers.network_call import EngineNetwork

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench_peers.network_call import NetworkCall

__all__ = ["Executed", "OpenVinoNetwork"]

_LAYER = re.compile(r"__module\.network\.([^/]+)/aten::\w*(?:conv|linear)\w*/")
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")
_INT8 = ("u8", "i8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What a layer became in the compiled graph.

    Args:
        kernel: type and implementation: `openvino Convolution jit_avx2_I8`.
        int8: whether it reads bytes.
    """

    kernel: str
    int8: bool


class OpenVinoNetwork(EngineNetwork):
    """Called like the torch network that it was converted from; float32 on the CPU.

    Args:
        path: of the graph, `.xml`. precision: of what it does not compute in int8.
        call, counts, like: see `EngineNetwork`.
    """

    def __init__(
        self,
        path: Path,
        call: NetworkCall,
        *,
        counts: dict[str, int],
        precision: str,
        like: Tensor,
    ) -> None:
        from tfq_bench_openvino.runtime import openvino

        super().__init__(call, counts=counts, like=like)
        self._core = openvino.Core()
        self._graph = self._core.read_model(path)
        self._precision = precision
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self.executed = _executed(self._model(call.inputs))
        self.kernels = [layer.kernel for layer in self.executed.values()]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the torch network would return for these arguments."""
        tensors = self._call.tensors(args, kwargs)
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        found = self._model(tensors)(arrays)
        return self.answer([torch.from_numpy(found[number].copy()) for number in range(len(found))])

    def largest_codes(self) -> dict[str, int]:
        """The largest absolute code of the int8 weights of each layer that has some."""
        found = {}
        for node in self._graph.get_ordered_ops():
            layer = _LAYER.search(f"{node.get_friendly_name()}/")
            if layer is None or node.get_type_name() not in ("Convolution", "MatMul"):
                continue
            weight = node.input_value(1).get_node()
            while weight.get_type_name() in ("Multiply", "Convert", "Subtract", "Reshape"):
                weight = weight.input_value(0).get_node()
            if weight.get_type_name() == "Constant" and weight.data.dtype == np.int8:
                found[layer[1]] = int(np.abs(weight.data.astype(np.int16)).max())
        return found

    def _model(self, tensors: tuple[Tensor, ...]) -> Any:
        """The graph compiled for tensors of these shapes, with torch's number of threads.

        Raises:
            LoweringError: OpenVINO cannot compile it.
        """
        threads = torch.get_num_threads()
        key = (threads, *(tuple(tensor.shape) for tensor in tensors))
        if key not in self._compiled:
            graph = self._graph.clone()
            try:
                graph.reshape({number: list(tensor.shape) for number, tensor in enumerate(tensors)})
                self._compiled[key] = self._core.compile_model(
                    graph,
                    "CPU",
                    {
                        "INFERENCE_NUM_THREADS": threads,
                        "INFERENCE_PRECISION_HINT": self._precision,
                        "PERFORMANCE_HINT": "LATENCY",
                        "NUM_STREAMS": 1,
                    },
                )
            except RuntimeError as error:
                shapes = [tuple(tensor.shape) for tensor in tensors]
                raise LoweringError(
                    f"OpenVINO cannot compile the network for inputs of {shapes}: {error}"
                ) from error
        return self._compiled[key]


def _executed(compiled: Any) -> dict[str, Executed]:
    """By layer of the torch network, what computes its product."""
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = {name: str(getattr(value, "value", value)) for name, value in node.rt_info.items()}
        kind = told.get("layerType", "")
        if kind not in _PRODUCTS:
            continue
        layer = _LAYER.search(told.get("originalLayersNames", ""))
        if layer is not None:
            found[layer[1]] = Executed(
                kernel=f"openvino {kind} {told.get('primitiveType', '?')}",
                int8=told.get("runtimePrecision") in _INT8,
            )
    return found
