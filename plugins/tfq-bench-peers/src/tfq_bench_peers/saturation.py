"""Whether OpenVINO's int8 sums are exact on this machine: tried, not read from a processor's flags.

Processors without VNNI add pairs of byte products in 16 bits, which saturate: 255*127 twice gives
32767 instead of 64770. Weights of 7 bits cannot get there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["saturates"]

CHANNELS, SIDE, LEVELS = 64, 8, 256


@cache
def saturates() -> bool:
    """Whether a convolution of the largest codes, 255 times 127, loses a part of its sums."""
    import openvino

    compiled = openvino.Core().compile_model(_convolution(), "CPU")
    found = compiled([np.full((1, CHANNELS, SIDE, SIDE), 255.0, np.float32)])[0]
    return bool(np.abs(found - 255.0 * 127.0 * CHANNELS * 9).max() > 1.0)


def _convolution() -> Any:
    """A 3x3 convolution that OpenVINO executes in int8: quantized input, weights of 127."""
    from openvino import Model
    from openvino import opset13 as ops

    x = ops.parameter([1, CHANNELS, SIDE, SIDE], np.float32)
    low, high = (np.full((1, 1, 1, 1), value, np.float32) for value in (0.0, 255.0))
    codes = ops.fake_quantize(x, low, high, low, high, LEVELS)
    stored = ops.constant(np.full((CHANNELS, CHANNELS, 3, 3), 127, np.int8))
    one = np.ones((CHANNELS, 1, 1, 1), np.float32)
    weights = ops.multiply(ops.convert(stored, "f32"), ops.constant(one))
    y = ops.convolution(codes, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return Model([ops.result(y)], [x], "saturation")
