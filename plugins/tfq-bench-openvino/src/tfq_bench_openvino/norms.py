"""Group norm in operations that stay in the layout of int8 convolutions, channels last.

Beside 8-bit layers the engine takes GroupNormalization apart into reshapes, for which it brings
every image to another layout and back. Means over pixels by channel, then over the channels of a
group, need no reshape of an image.
"""

from __future__ import annotations

import math

import numpy as np

from tfq_bench_openvino.runtime import Model, Output, opset13

__all__ = ["decompose_group_norms"]


def decompose_group_norms(model: Model) -> int:
    """How many group norms of images were taken apart, in `model` itself."""
    count = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "GroupNormalization":
            continue
        x, weight, bias = (port.get_source_output() for port in node.inputs())
        shape = x.get_partial_shape()
        if len(shape) != 4 or any(size.is_dynamic for size in list(shape)[1:]):
            continue
        channels, *image = (size.get_length() for size in list(shape)[1:])
        attributes = node.get_attributes()
        found = _group_norm(
            x,
            weight,
            bias,
            channels=channels,
            pixels=math.prod(image),
            groups=attributes["num_groups"],
            epsilon=attributes["epsilon"],
        )
        node.output(0).replace(found)
        count += 1
    return count


def _group_norm(
    x: Output,
    weight: Output,
    bias: Output,
    *,
    channels: int,
    pixels: int,
    groups: int,
    epsilon: float,
) -> Output:
    """Of x `[B, C, H, W]`; weight and bias `[C]`.

    The variance is the mean of squares less the square of the mean, each from one pass that writes
    no image. In float32 that is off by some 1e-7 times mean^2, which parity with the simulation
    would show in a network whose means are far from 0.
    """

    def group_mean(value: Output) -> Output:
        """Of `[B, C, 1, 1]`, in the same shape: each channel has the mean of its group."""
        grouped = opset13.reshape(value, np.array([-1, groups, channels // groups]), False)
        mean = opset13.reduce_mean(grouped, np.array([2]), keep_dims=True)
        tiled = opset13.tile(mean, np.array([1, 1, channels // groups]))
        return opset13.reshape(tiled, np.array([-1, channels, 1, 1]), False).output(0)

    wide, image = np.array([1, channels, 1, 1]), np.array([2, 3])
    mean = group_mean(opset13.reduce_mean(x, image, keep_dims=True).output(0))
    # The engine has no mean of squares; a length is one pass, and its square one number a channel.
    length = opset13.reduce_l2(x, image, keep_dims=True)
    squares = group_mean(opset13.multiply(length, length).output(0))
    squares = opset13.multiply(squares, np.float32(1 / pixels)).output(0)
    variance = opset13.subtract(squares, opset13.multiply(mean, mean))
    variance = opset13.maximum(variance, np.float32(0))  # of equal values it may round below
    deviation = opset13.sqrt(opset13.add(variance, np.float32(epsilon)))
    scale = opset13.divide(opset13.reshape(weight, wide, False), deviation)
    y = opset13.multiply(opset13.subtract(x, mean), scale)
    return opset13.add(y, opset13.reshape(bias, wide, False)).output(0)
