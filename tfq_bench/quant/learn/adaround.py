"""AdaRound: whether each weight is rounded up or down is learned (arXiv:2004.10568).

A variable alpha per weight says how far up it goes, h(alpha) in [0, 1]:

    h(alpha) = clip(sigmoid(alpha) * (zeta - gamma) + gamma, 0, 1),   gamma = -0.1, zeta = 1.1
    w~ = s * (clamp(floor(w / s) + h(alpha) + z, 0, 2^b - 1) - z)

It starts where w~ = w (up to clipping). A regulariser sum(1 - |2h - 1|^beta), with beta falling,
drives every h to 0 or 1; what is left is rounded at h = 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfq_bench.quant.state.affine import per_channel

__all__ = ["SoftRounding", "anneal"]

GAMMA, ZETA = -0.1, 1.1
"""The stretched sigmoid reaches 0 and 1 at finite alpha."""

WARM_UP = 0.2
"""Part of the iterations without the regulariser."""

BETA_START, BETA_END = 20.0, 2.0


class SoftRounding(nn.Module):
    """Learned rounding of one weight, or of one slice of its input channels.

    Args:
        weight: float32 `(C_out, ...)`.
        scale: float32 `[C_out]`.
        zero_point: int32 `[C_out]`.
        bits: 2 to 8.
    """

    floor: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.top = 2**bits - 1
        self.register_buffer("scale", per_channel(scale, weight).clone())
        self.register_buffer("zero_point", per_channel(zero_point, weight).float())
        scaled = weight * self.scale.reciprocal()  # as `affine.quantize` does
        self.register_buffer("floor", scaled.floor())
        fraction = scaled - self.floor
        self.alpha = nn.Parameter(-torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1.0))

    def up(self) -> Tensor:
        """h(alpha), in [0, 1], shape of the weight."""
        return (torch.sigmoid(self.alpha) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)

    def soft(self) -> Tensor:
        """float32 w~, differentiable in alpha."""
        return self._dequantized(self.up())

    def hard(self) -> Tensor:
        """float32 w^: every weight goes up or down, whichever h is closer to."""
        return self._dequantized((self.alpha.detach() >= 0).float())

    def codes(self) -> Tensor:
        """uint8 codes of `hard`."""
        up = (self.alpha.detach() >= 0).float()
        return self._codes(up).to(torch.uint8)

    def regulariser(self, beta: Tensor | float) -> Tensor:
        """sum(1 - |2h - 1|^beta), 0-d; 0 when every h is 0 or 1."""
        return (1.0 - (2.0 * self.up() - 1.0).abs().pow(beta)).sum()

    def _codes(self, up: Tensor) -> Tensor:
        return (self.floor + up + self.zero_point).clamp(0.0, float(self.top))

    def _dequantized(self, up: Tensor) -> Tensor:
        return self.scale * (self._codes(up) - self.zero_point)


def anneal(step: int, total: int) -> float | None:
    """Beta at iteration `step` of `total`: None in the first fifth, then from 20 down to 2."""
    start = WARM_UP * total
    if step < start:
        return None
    left = 1.0 - (step - start) / max(1.0, total - start)
    return BETA_END + (BETA_START - BETA_END) * max(0.0, left)
