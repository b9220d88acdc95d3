"""From a torch network to an OpenVINO model: a trace, translated, its layers put in.

`openvino.convert_model` does the same and reports its use to a server, see `runtime`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from tfq_bench.api import LoweringError, StepCursor, printable
from tfq_bench_openvino.layer_graph import layer_graph, step_scalars
from tfq_bench_openvino.layers import LAYERS, OPERATOR, Int8Layer
from tfq_bench_openvino.norms import decompose_group_norms
from tfq_bench_openvino.runtime import (
    ConversionExtension,
    FrontEndManager,
    TorchScriptPythonDecoder,
    openvino,
)

__all__ = ["translate"]

_log = logging.getLogger("tfq_bench.openvino")


def translate(
    call: Callable[..., Sequence[Tensor]],
    network: nn.Module,
    step: StepCursor,
    tensors: Sequence[Tensor],
) -> openvino.Model:
    """The model of `call(*tensors)`; its inputs are the step, int64 `[1]`, and the tensors.

    Args:
        call: calls `network` with the tensors and whatever else belongs to the call.
        network: reads `step.index`; its modules must have no hooks.
        tensors: as in the calls to come, whose first dimension may be another.

    Raises:
        LoweringError: the network cannot be traced or translated, and why.
    """
    layers = [module for module in network.modules() if isinstance(module, Int8Layer)]
    for layer in layers:
        layer.shapes.clear()
    index = step.index
    try:
        with torch.no_grad(), _disable_current_modes(), _quiet(), _as_input(step) as move:
            traced = torch.jit.trace(
                lambda index, *others: (move(index), tuple(call(*others)))[1],
                (index.clone(), *tensors),
                check_trace=False,
            )
        decoder = TorchScriptPythonDecoder(traced)
        frontend = FrontEndManager().load_by_framework("pytorch")
        frontend.add_extension(ConversionExtension(OPERATOR, _Conversion(layers)))
        places = frontend.load(decoder)
        for place, tensor in zip(places.get_inputs(), (index, *tensors), strict=True):
            places.set_partial_shape(place, _any_batch(tensor, tensors[0].shape[0]))
            places.set_element_type(place, _TYPES[tensor.dtype])
        model = frontend.convert(places)
    except Exception as error:
        raise LoweringError(
            "OpenVINO cannot translate the network: "
            f"{type(error).__name__}: {printable(error, 600)}; use another backend."
        ) from error
    if layers:  # the engine's own group norm is faster beside float layers
        decompose_group_norms(model)
    return model


_TYPES = {
    torch.float32: openvino.Type.f32,
    torch.int64: openvino.Type.i64,
    torch.int32: openvino.Type.i32,
    torch.bool: openvino.Type.boolean,
}


class _Conversion:
    """Turns calls of the operator into the layers' operations.

    Their tables are one constant, which is read at the step once.
    """

    def __init__(self, layers: Sequence[Int8Layer]) -> None:
        self._columns: dict[int, slice] = {}
        tables, start = [], 0
        for layer in layers:
            tables.append(layer.operands.table)
            stop = start + layer.operands.table.shape[1]
            self._columns[layer.number] = slice(start, stop)
            start = stop
        self._table = np.concatenate(tables, 1) if tables else None
        self._scalars: list[openvino.Output] | None = None

    def __call__(self, node: Any) -> list[openvino.Output]:
        layer = LAYERS[int(node.get_values_from_const_input(2))]
        if self._scalars is None:
            assert self._table is not None
            self._scalars = step_scalars(self._table, node.get_input(1))
        shapes = {shape[1:] for shape in layer.shapes}
        if len(shapes) > 1:
            raise ValueError(f"layer '{layer.operands.name}' sees images of sizes {shapes}")
        scalars = self._scalars[self._columns[layer.number]]
        found: list[openvino.Output] = layer_graph(
            layer.operands, node.get_input(0), scalars, layer.shapes[0]
        ).outputs()
        return found


def _any_batch(tensor: Tensor, batch: int) -> openvino.PartialShape:
    """The tensor's shape; its first dimension is open where it is the batch."""
    shape = list(tensor.shape)
    if shape and shape[0] == batch and batch > 1:
        shape[0] = -1
    return openvino.PartialShape(shape)


@contextmanager
def _as_input(step: StepCursor) -> Iterator[Callable[[Tensor], None]]:
    """Gives what makes the step an input of the trace, for its duration."""
    before = step.index

    def move(index: Tensor) -> None:
        step.index = index

    try:
        yield move
    finally:
        step.index = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on tracing, which no user of a benchmark can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield
