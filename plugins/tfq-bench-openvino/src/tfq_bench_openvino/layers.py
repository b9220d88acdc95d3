"""The module that stands for a quantized layer: an operator in a trace, a model of its own else.

While the network is traced it is one call of the operator `tfq_bench_openvino::layer`, which
`translate` turns into the layer's operations. When the network runs module by module, because
somebody watches its layers, it is the same operations, compiled alone.
"""

from __future__ import annotations

import itertools
from collections.abc import MutableMapping
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from tfq_bench.api import StepCursor
from tfq_bench_openvino.engine import Compiled, compile_model
from tfq_bench_openvino.layer_graph import layer_graph, step_scalars
from tfq_bench_openvino.operands import Operands
from tfq_bench_openvino.runtime import Type, openvino, opset13

__all__ = ["CONV2D", "HALVES", "LAYERS", "LINEAR", "OPERATOR", "Int8Layer"]

CONV2D = "openvino convolution u8s8"
LINEAR = "openvino linear u8s8"
HALVES = ", weights in halves"
"""Added to a kernel's name where a part's weights are sums of two: see `operands`."""

LAYERS: WeakValueDictionary[int, Int8Layer] = WeakValueDictionary()
"""The layers of this process by the number that a trace holds."""

_NUMBERS = itertools.count()
_LIBRARY = torch.library.Library("tfq_bench_openvino", "DEF")
_LIBRARY.define("layer(Tensor x, Tensor step, int number) -> Tensor")
OPERATOR = "tfq_bench_openvino::layer"


def _traced(x: Tensor, step: Tensor, number: int) -> Tensor:  # noqa: ARG001
    """Zeros of the shape of the layer's output; the layer notes the shape of its input."""
    return LAYERS[number].note(x)


_LIBRARY.impl("layer", _traced, "CPU")


class Int8Layer(nn.Module):
    """A convolution of `[B, C_in, H, W]` or a linear layer of `[..., C_in]`.

    Args:
        step: where per-step tables are read.
        executed: its entry `kernel` is incremented at each call that computes.

    Attributes:
        shapes: of its input at each call in the last trace.
    """

    def __init__(
        self, operands: Operands, step: StepCursor, executed: MutableMapping[str, int]
    ) -> None:
        super().__init__()
        self.operands = operands
        self.kernel = LINEAR if operands.geometry is None else CONV2D
        if operands.halves:
            self.kernel += HALVES
        self.number = next(_NUMBERS)
        self.shapes: list[tuple[int, ...]] = []
        self._step, self._executed = step, executed
        self._alone: tuple[tuple[int, ...], Compiled] | None = None
        LAYERS[self.number] = self

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_out, H', W']` or `[..., C_out]`, in x's type."""
        if torch.jit.is_tracing():
            traced: Tensor = torch.ops.tfq_bench_openvino.layer(x, self._step.index, self.number)
            return traced
        shape = tuple(x.shape)
        if self._alone is None or self._alone[0] != shape:
            self._alone = shape, self._compiled(shape)
        (y,) = self._alone[1]([self._step.index, x.float()])
        self._executed[self.kernel] = self._executed.get(self.kernel, 0) + 1
        return y.to(x.dtype)

    def release(self) -> None:
        """Frees the model of the layer alone."""
        self._alone = None

    def note(self, x: Tensor) -> Tensor:
        """Zeros, shaped and typed like the layer's output for `x`, whose shape is noted."""
        self.shapes.append(tuple(x.shape))
        geometry = self.operands.geometry
        if geometry is None:
            return x.new_zeros((*x.shape[:-1], self.operands.channels))
        height, width = (
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, padding, dilation, taps, stride in zip(
                x.shape[2:],
                geometry.padding,
                geometry.dilation,
                self.operands.parts[0].weight.shape[2:],
                geometry.stride,
                strict=True,
            )
        )
        return x.new_zeros((len(x), self.operands.channels, height, width))

    def _compiled(self, shape: tuple[int, ...]) -> Compiled:
        step = opset13.parameter([1], Type.i64)
        x = opset13.parameter(list(shape), Type.f32)
        scalars = step_scalars(self.operands.table, step)
        y = layer_graph(self.operands, x, scalars, shape)
        return compile_model(openvino.Model([y], [step, x], self.operands.name))
