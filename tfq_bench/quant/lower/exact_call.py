"""The exact output of one call of a quantized layer, and how far another may be from it.

Where codes meet codes the sums are integers, so a kernel's are equal to them or it is wrong; see
`ExactCall` for what rounding is allowed. A layer that computes in full precision is off by many
units, since its weights are no codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tfq_bench.errors import LoweringError
from tfq_bench.quant.layers import WeightedLayer, apply_layer
from tfq_bench.quant.state.affine import per_channel

if TYPE_CHECKING:
    from tfq_bench.quant.state.quantized_state import QuantizedLayer

__all__ = ["ExactCall", "LayerCheck"]

BUDGET = 2**28
"""Multiply-accumulates spent on one call of one layer; a larger layer is seen on some channels."""

_ROUNDINGS = 2.0**-20
"""Sixteen roundings to float32: what scaling a sum, the parts and the bias take, with room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCheck:
    """How far one layer was from its exact sums.

    Args:
        error: root mean square difference over the root mean square of the exact output.
        share: of the limit that was used, at most 1 when the layer is right.
        kernel: whether the layer was said to run a low-bit kernel.
    """

    layer: str
    error: float
    share: float
    kernel: bool


class ExactCall:
    """The exact output of one call of a layer, and how far another may be from it.

    An integer sum must be hit: half a unit (s * s_w) is allowed, beside the roundings to float32
    of the epilogue and, once, to the output's own type. An input that falls on the border of two
    codes may take either. A fallback adds its integers in float32, which is exact below 2^24 and
    rounds above. A part with float activations has no integers; its error must stay, in root mean
    square, a tenth of what rounding the weight to its codes costs on average, |x| s_w / sqrt(12).

    Args:
        original: the full-precision layer, for stride, padding and groups.
        x: the call's input, `[B, C, H, W]` or `[..., C]`.
        step: of the sampler, at which tables are read.
        kernel: whether the layer was said to run a low-bit kernel.

    Attributes:
        expected, limit: float64, of the output channels that are compared.
    """

    def __init__(
        self, layer: QuantizedLayer, original: WeightedLayer, x: Tensor, step: int, kernel: bool
    ) -> None:
        self._layer, self._kernel, self._geometry = layer, kernel, original
        self._where = f"at step {step}, in a call with {len(x)} rows"
        self._axis = 1 if layer.kind == "conv2d" else -1
        self._wide = (-1, 1, 1) if layer.kind == "conv2d" else (-1,)
        self._channels = _chosen(layer, original, x)
        total: Any = 0.0
        limit: Any = 0.0
        for part in layer.parts:
            weight = part.weight.double() - per_channel(part.zero_point, part.weight)
            weight = weight[self._channels].to(x.device)
            scale = part.scale[self._channels].to(x.device).double().reshape(self._wide)
            width = part.stop - part.start
            piece = x if len(layer.parts) == 1 else x.narrow(self._axis, part.start, width)
            table = part.activation
            if table is None:
                value = self._apply(piece.double(), weight) * scale
                spread = self._apply(piece.double().square(), torch.ones_like(weight))
                slack = 0.1 * scale * (spread / 12).sqrt()
                slack = slack + 4 * torch.finfo(x.dtype).eps * value.square().mean().sqrt()
            else:
                k = step if len(table.scale) > 1 else 0
                s = table.scale[k].to(x.device)
                z = int(table.zero_point[k])
                code = piece.float() * s.reciprocal()
                border = ((code - code.floor() - 0.5).abs() <= 2.0**-21 * code.abs()).double()
                code = (code.round() + z).clamp_(0, 2**table.bits - 1).double() - z
                sums = self._apply(code, weight)
                unit = scale * s.double()
                value = sums * unit
                slack = 0.5 * unit + _ROUNDINGS * value.abs()
                if bool(border.any()):
                    slack = slack + self._apply(border, weight.abs()) * unit
                if not kernel:
                    slack = slack + self._float_sums(code, weight) * unit
            total, limit = total + value, limit + slack
        if layer.bias is not None:
            bias = layer.bias[self._channels].to(x.device).double().reshape(self._wide)
            total, limit = total + bias, limit + _ROUNDINGS * bias.abs()
        self.expected: Tensor = total
        self.limit: Tensor = limit

    def compare(self, found: Any) -> LayerCheck:
        """How far `found`, all channels of the layer's output, is off.

        Raises:
            LoweringError: beyond the limit, of another shape or not finite.
        """
        name, axis = self._layer.name, self._axis
        shape = list(self.expected.shape)
        shape[axis] = self._layer.parts[0].weight.shape[0]
        if not isinstance(found, Tensor) or list(found.shape) != shape:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise LoweringError(
                f"layer '{name}': expected shape {tuple(shape)}, found {what}.",
                layer=name,
                expected=tuple(shape),
                found=what,
            )
        if not bool(torch.isfinite(found).all()):
            raise LoweringError(f"layer '{name}' gives values that are not finite.", layer=name)
        chosen = torch.arange(shape[axis], device=found.device)[self._channels]
        value = found.index_select(axis, chosen).double()
        limit = self.limit + torch.finfo(found.dtype).eps * self.expected.abs()
        difference = (value - self.expected).abs()
        if all(part.activation is None for part in self._layer.parts):
            share = _rms(difference) / max(_rms(limit), math.ulp(0.0))
        else:
            share = float((difference / limit).max())
        error = _rms(difference) / max(_rms(self.expected), float(limit.min()))
        if share > 1:
            raise LoweringError(
                f"layer '{name}' does not compute the state's integers: {self._where}, its output "
                f"is off by {error:.2g} of its size, {share:.3g} times what rounding explains.",
                layer=name,
                found=error,
            )
        return LayerCheck(layer=name, error=error, share=share, kernel=self._kernel)

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return apply_layer(self._geometry, x, weight, None)

    def _float_sums(self, code: Tensor, weight: Tensor) -> Tensor:
        """What float32 may lose of sums beyond 2^24, in units."""
        terms = weight[0].numel()
        sizes = self._apply(code.abs(), weight.abs())
        lost = 2.0**-23 * math.sqrt(terms) * sizes
        return torch.where(sizes < 2.0**24, torch.zeros_like(lost), lost)


def _chosen(layer: QuantizedLayer, original: WeightedLayer, x: Tensor) -> slice:
    """Output channels that are compared: all, or as many as `BUDGET` pays for, evenly spaced."""
    weight = layer.parts[0].weight
    if getattr(original, "groups", 1) != 1:
        return slice(None)
    positions = x.numel() // x.shape[1 if layer.kind == "conv2d" else -1]
    terms = sum(part.weight[0].numel() for part in layer.parts)
    step = math.ceil(positions * terms * weight.shape[0] / BUDGET)
    return slice(None, None, min(max(step, 1), weight.shape[0]))


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
