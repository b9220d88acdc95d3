"""Group norm in operations that stay in the layout of int8 convolutions, channels last.

Beside 8-bit layers the engine takes GroupNormalization apart into reshapes, for which it brings
every image to another layout and back. Means over pixels by channel, then over the channels of a
group, need no reshape of an image.
"""

from __future__ import annotations

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
        if len(shape) != 4 or shape[1].is_dynamic:
            continue
        attributes = node.get_attributes()
        found = _group_norm(
            x,
            weight,
            bias,
            channels=shape[1].get_length(),
            groups=attributes["num_groups"],
            epsilon=attributes["epsilon"],
        )
        node.output(0).replace(found)
        count += 1
    return count


def _group_norm(
    x: Output, weight: Output, bias: Output, *, channels: int, groups: int, epsilon: float
) -> Output:
    """Of x `[B, C, H, W]`; weight and bias `[C]`."""

    def moments(value: Output) -> Output:
        """`[B, C, 1, 1]`: each channel has the mean of its group."""
        pixels = opset13.reduce_mean(value, np.array([2, 3]), keep_dims=True)
        grouped = opset13.reshape(pixels, np.array([-1, groups, channels // groups]), False)
        mean = opset13.reduce_mean(grouped, np.array([2]), keep_dims=True)
        tiled = opset13.tile(mean, np.array([1, 1, channels // groups]))
        return opset13.reshape(tiled, np.array([-1, channels, 1, 1]), False).output(0)

    wide = np.array([1, channels, 1, 1])
    centred = opset13.subtract(x, moments(x))
    variance = moments(opset13.multiply(centred, centred).output(0))
    deviation = opset13.sqrt(opset13.add(variance, np.float32(epsilon)))
    scale = opset13.divide(opset13.reshape(weight, wide, False), deviation)
    y = opset13.multiply(centred, scale)
    return opset13.add(y, opset13.reshape(bias, wide, False)).output(0)
