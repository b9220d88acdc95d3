"""What the engine's int8 products do on this machine, tried on known sums, not read from flags."""

from __future__ import annotations

import functools

import numpy as np
import torch

from tfq_bench_openvino.engine import compile_model
from tfq_bench_openvino.executed import Execution
from tfq_bench_openvino.layer_graph import layer_graph, step_scalars
from tfq_bench_openvino.operands import UNIT, Geometry, Operands, PartOperands
from tfq_bench_openvino.runtime import Type, openvino, opset13

__all__ = ["TERMS", "executed_precision", "largest_sum", "saturates"]

TERMS = 64
"""Products of a trial sum: one full vector of 64 bytes."""

_POINT = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1))
_SHAPES: tuple[tuple[Geometry | None, tuple[int, ...], tuple[int, ...]], ...] = (
    (None, (4, TERMS), ()),
    (_POINT, (1, TERMS, 6, 6), (1, 1)),
    (_POINT, (1, TERMS, 6, 6), (3, 3)),
    (_POINT, (1, 3, 6, 6), (3, 3)),
)
"""Kinds of products that the engine has kernels of their own for: geometry, input and taps."""

_FLOAT_PRODUCTS = ("MatMul", "FullyConnected")


def largest_sum(weight: int) -> tuple[int, float]:
    """Of sums of products of 255 and `weight`: the one that is furthest off, expected and found.

    Found is NaN where the engine multiplied in float.
    """
    sums = [_trial(weight, *shape) for shape in _SHAPES]
    return max(sums, key=lambda pair: abs(pair[0] - pair[1]) if pair[1] == pair[1] else np.inf)


@functools.cache
def saturates() -> bool:
    """Whether this machine loses sums of full 8-bit weights."""
    return any(expected != found for expected, found in map(largest_sum, (127, -128)))


@functools.cache
def executed_precision(precision: str) -> str:
    """What the engine computes a float product in when it is asked for `f32` or `bf16`."""
    x = opset13.parameter([64, 64], Type.f32)
    y = opset13.matmul(x, np.ones((64, 64), np.float32), False, True)
    nodes = compile_model(openvino.Model([y], [x], "trial"), precision).nodes()
    (found,) = {node["runtimePrecision"] for node in nodes if node["layerType"] in _FLOAT_PRODUCTS}
    return str(found)


def _trial(
    weight: int, geometry: Geometry | None, shape: tuple[int, ...], taps: tuple[int, ...]
) -> tuple[int, float]:
    channels = 32
    inputs = shape[-1] if geometry is None else shape[1]
    part = PartOperands(
        start=0,
        stop=inputs,
        bits=8,
        weight=np.full((channels, inputs, *taps), weight, np.int8),
        halves=False,
        scale=np.ones(channels, np.float32),
        shifted=False,
    )
    operands = Operands(
        name="trial",
        geometry=geometry,
        parts=(part,),
        bias=None,
        table=np.array([[1.0, 1.0 / UNIT, 0.0]], np.float32),
    )
    step, x = opset13.parameter([1], Type.i64), opset13.parameter(list(shape), Type.f32)
    y = layer_graph(operands, x, step_scalars(operands.table, step), shape)
    compiled = compile_model(openvino.Model([y], [step, x], "trial"))
    expected = 255 * weight * inputs * int(np.prod(taps))
    if not Execution.of(compiled).int8:
        return expected, float("nan")
    (found,) = compiled([torch.zeros(1, dtype=torch.int64), torch.full(shape, 255.0)])
    values = found.flatten().tolist()
    return expected, max(values, key=lambda value: abs(value - expected))
