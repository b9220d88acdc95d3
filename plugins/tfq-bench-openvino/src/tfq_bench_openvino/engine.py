"""OpenVINO's CPU engine: the settings of every model, and one compiled model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tfq_bench_openvino.runtime import openvino

__all__ = ["Compiled", "compile_model"]


@functools.cache
def _core() -> openvino.Core:
    return openvino.Core()


def compile_model(model: openvino.Model, precision: str = "f32") -> Compiled:
    """A model for this processor in as many threads as torch has.

    Args:
        precision: `f32` or `bf16`, of everything that is no int8 product.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Processes of one run would all be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return Compiled(_core().compile_model(model, "CPU", settings))


class Compiled:
    """A compiled model of static shapes."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Its outputs, copied.

        Args:
            inputs: on the CPU, of the shapes and types that it was compiled for.
        """
        # Held until the end of the call: the request reads them where they are.
        held = [openvino.Tensor(_array(one), shared_memory=True) for one in inputs]
        for number, tensor in enumerate(held):
            self._request.set_input_tensor(number, tensor)
        self._request.infer()
        return [
            torch.from_numpy(np.array(self._request.get_output_tensor(number).data))
            for number in range(len(self._compiled.outputs))
        ]

    def nodes(self) -> list[dict[str, Any]]:
        """What the engine says of each operation that it executes: type, primitive, origins."""
        return [
            {key: _plain(value) for key, value in node.get_rt_info().items()}
            for node in self._compiled.get_runtime_model().get_ordered_ops()
        ]


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().contiguous().numpy()
    return array


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
