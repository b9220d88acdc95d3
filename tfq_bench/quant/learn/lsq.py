"""Learned step sizes of activations (LSQ, arXiv:1902.08153).

    x^ = s * (clamp(round(x * (1/s)) + z, 0, 2^b - 1) - z)

Rounding passes gradients straight through, clamping does not. What is learned is the logarithm of
s over the scale it starts from, so that scales stay positive, a learning rate means a relative
change, and what was never learned keeps its scale to the bit. The zero point stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfq_bench.quant.state.affine import fake_quantize, select_step
from tfq_bench.quant.state.qparams import ActivationQParams

__all__ = ["LSQFakeQuantize", "straight_through"]


class LSQFakeQuantize(nn.Module):
    """Quantizes one input with an activation table whose scales may be learned.

    Args:
        table: where it starts; one entry, or one per sampler step.
    """

    start: Tensor
    zero_point: Tensor

    def __init__(self, table: ActivationQParams, device: torch.device | str) -> None:
        super().__init__()
        self.bits = table.bits
        self.register_buffer("start", table.scale.detach().to(device, copy=True))
        self.register_buffer("zero_point", table.zero_point.to(device).float())
        self.log_ratio = nn.Parameter(torch.zeros_like(self.start), requires_grad=False)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """X quantized and back, float32, shape of x.

        Args:
            x: `[B, ...]`.
            index: int64 `[1]` or `[B]`, the sampler step of the batch or of each sample.
        """
        scale, zero_point = select_step(self.scale(), self.zero_point, index, x.dim())
        return fake_quantize(x, scale, zero_point, self.bits, straight_through)

    def scale(self) -> Tensor:
        """float32 `[1]` or `[T]`, differentiable in `log_ratio`."""
        return self.start * self.log_ratio.exp()

    def table(self) -> ActivationQParams:
        """The present parameters, on the CPU."""
        return ActivationQParams(
            bits=self.bits,
            scale=self.scale().detach().to("cpu", copy=True),
            zero_point=self.zero_point.to("cpu", torch.int32, copy=True),
        )


def straight_through(x: Tensor) -> Tensor:
    """X rounded, half to even, with the gradient of x."""
    return x + (x.round() - x).detach()
