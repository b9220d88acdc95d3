"""The operations of one quantized layer in an OpenVINO model.

With codes q in [0, 2^b - 1], zero point z, scale s, int8 weights w and their scale s_w per channel

    q = clamp(round(x * (1/s)) + z)          FakeQuantize with constant limits, which the engine
                                             turns into 8-bit codes
    a = sum_i q_i * w_i                      int8 product, int32 sums
    y = (a - z * sum_i w_i) * s * s_w + bias         in float32, as the simulation rounds

1/s, s and z are inputs of the model in effect: they are read from a table at the sampler's step, so
one compiled model serves all steps. Zero padding pads with code 0 instead of z; the constant of z
is therefore a map, the sum of those weights that lie inside of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfq_bench_openvino.operands import COLUMNS, UNIT, Operands, PartOperands
from tfq_bench_openvino.runtime import Type, opset13

if TYPE_CHECKING:
    from tfq_bench_openvino.operands import Geometry
    from tfq_bench_openvino.runtime import Node, Output

__all__ = ["layer_graph", "product_name", "step_scalars"]

PREFIX = "tfq:"


def product_name(layer: str, part: int) -> str:
    """The name of a part's product in the model, by which the executed graph tells of it."""
    return f"{PREFIX}{layer}#{part}"


def step_scalars(table: np.ndarray[Any, Any], step: Output | Node) -> list[Output]:
    """One output `[1, 1, 1, 1]` per column of `table`, at the current step.

    Args:
        table: float32 `[T, columns]`.
        step: int64 `[1]`.
    """
    # Of one row the engine would make constants, and multiply them before the sums are scaled.
    rows = np.concatenate([table, table]) if len(table) == 1 else table
    # Four dimensions, as images have: operations of one rank run in the layout of the kernels.
    row = opset13.gather(opset13.constant(rows[:, :, None, None]), step, opset13.constant(0))
    outputs: list[Output] = opset13.split(row, 1, table.shape[1]).outputs()
    return outputs


def layer_graph(
    operands: Operands, x: Output | Node, scalars: Sequence[Output], shape: Sequence[int]
) -> Node:
    """The layer's output, float32.

    Args:
        x: float32 `[B, C, H, W]` or `[..., C]`.
        scalars: the layer's own columns, see `step_scalars`.
        shape: of x as it was traced; only the first dimension may be another one later.
    """
    rank = len(shape)
    if rank != 4:
        scalars = [opset13.reshape(one, [1] * rank, False).output(0) for one in scalars]
    # Broadcasts over the output: channels are its second or its last dimension.
    wide = (1, -1, 1, 1) if operands.geometry is not None else (-1,)
    total = None
    for number, part in enumerate(operands.parts):
        columns = scalars[COLUMNS * number : COLUMNS * (number + 1)]
        y = _part_sums(operands, number, x, columns, shape)
        y = opset13.multiply(y, columns[1])
        y = opset13.multiply(y, part.scale.reshape(wide))
        if number == 0 and operands.bias is not None:
            y = opset13.add(y, operands.bias.reshape(wide))
        total = y if total is None else opset13.add(total, y)
    assert total is not None
    return total


def _part_sums(
    operands: Operands, number: int, x: Any, columns: Sequence[Output], shape: Sequence[int]
) -> Node:
    """Integer sums times `UNIT`, the zero point taken off."""
    part, geometry = operands.parts[number], operands.geometry
    inverse, _, zero_point = columns
    axis = 1 if geometry is not None else len(shape) - 1
    if len(operands.parts) > 1:
        x = opset13.slice(x, [part.start], [part.stop], [1], [axis])
    # Rounded before the zero point is added, which would round values near a border otherwise.
    code = opset13.round(opset13.multiply(x, inverse), "half_to_even")
    if part.shifted:
        code = opset13.add(code, zero_point)
    if part.bits < 8:  # the engine knows FakeQuantize of 256 levels
        code = opset13.clamp(code, 0.0, 2.0**part.bits - 1)
    zero, top = np.float32(0), np.float32(255)
    code = opset13.fake_quantize(code, zero, top, zero, top, 256)
    if part.halves:
        code = opset13.concat([code, code], axis)
    y = _product(code, part.weight, geometry, shape, product_name(operands.name, number))
    if part.shifted:
        y = opset13.subtract(y, opset13.multiply(_inside(part, geometry, shape), zero_point))
    return y


def _product(
    code: Node,
    weight: np.ndarray[Any, Any],
    geometry: Geometry | None,
    shape: Sequence[int],
    name: str,
) -> Node:
    """The int8 product, times `UNIT`.

    A linear layer is a convolution of one row of pixels, which lie in memory as they are. The
    engine's matrix product of bytes takes twice that time where there is no VNNI.
    """
    filters = weight.reshape(*weight.shape[:2], *weight.shape[2:] or (1, 1))
    # Shared with the operands, which are kept: of a large network gigabytes.
    constant = opset13.convert(opset13.constant(filters, Type.i8, shared_memory=True), "f32")
    unit = np.full((len(weight), 1, 1, 1), UNIT, np.float32)
    constant = opset13.multiply(constant, unit)
    if geometry is not None:
        pads = list(geometry.padding)
        strides, dilation = list(geometry.stride), list(geometry.dilation)
        y = opset13.convolution(code, constant, strides, pads, pads, dilation)
        y.set_friendly_name(name)
        return y
    outputs, inputs = weight.shape
    pixels = opset13.reshape(code, [1 if len(shape) == 2 else 0, 1, -1, inputs], True)
    pixels = opset13.transpose(pixels, [0, 3, 1, 2])
    y = opset13.convolution(pixels, constant, [1, 1], [0, 0], [0, 0], [1, 1])
    y.set_friendly_name(name)
    y = opset13.transpose(y, [0, 2, 3, 1])
    sizes = [-1] if len(shape) == 2 else [0, -1, *shape[2:-1]]
    return opset13.reshape(y, [*sizes, outputs], True)


def _inside(
    part: PartOperands, geometry: Geometry | None, shape: Sequence[int]
) -> np.ndarray[Any, Any]:
    """`UNIT` times the sum of the weights that lie inside of the image.

    float32 `[C_out]` of a linear layer, `[1, C_out, H', W']` of a convolution that pads and
    `[1, C_out, 1, 1]` of one that does not.
    """
    weight = part.weight.astype(np.float64)
    if geometry is None:
        sums = weight.sum(1)
    elif geometry.padding == (0, 0):
        sums = weight.sum((1, 2, 3)).reshape(1, -1, 1, 1)
    else:
        rows, columns = (
            _taps_inside(*one)
            for one in zip(
                shape[2:],
                weight.shape[2:],
                geometry.stride,
                geometry.padding,
                geometry.dilation,
                strict=True,
            )
        )
        sums = np.einsum("ckl,yk,xl->cyx", weight.sum(1), rows, columns, optimize=True)[None]
    return (sums * UNIT).astype(np.float32)


def _taps_inside(
    size: int, taps: int, stride: int, padding: int, dilation: int
) -> np.ndarray[Any, Any]:
    """float64 `[size', taps]`: 1 where a tap lies inside of an image of `size` pixels."""
    count = (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    place = np.arange(count)[:, None] * stride - padding + np.arange(taps) * dilation
    return ((place >= 0) & (place < size)).astype(np.float64)
