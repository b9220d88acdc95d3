"""What is known of a quantized network's error at each step, and taken out at the sampler.

The model of the error (PTQD, arXiv:2305.10657): of a prediction e, the quantized network
gives

    e^ = (1 + k_t) e + b_tc + r,    r of mean 0 and variance sigma_q(t)^2

so that (e^ - b_tc) / (1 + k_t) is e up to r / (1 + k_t).

| symbol | |
|---|---|
| `T`, `t` | steps of the sampler; one of them, in execution order |
| `C`, `c` | channels of a prediction; one of them |
| `k_t` | slope of the error over the full-precision prediction |
| `b_tc` | bias |
| `sigma_q(t)^2` | variance of what neither explains |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tfq_bench.errors import QuantizationError

__all__ = ["SamplerCorrection"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SamplerCorrection:
    """Slope, bias and remaining variance of a network's error, for the guided prediction.

    Args:
        slope: float32 `[T]`, k_t; above -1.
        bias: float32 `[T, C]`, in units of the prediction.
        variance: float32 `[T]`, sigma_q(t)^2 of e^, before it is divided; at least 0.

    Raises:
        QuantizationError: tensors of another type or shape, or values that correct nothing.
    """

    slope: Tensor
    bias: Tensor
    variance: Tensor

    def __post_init__(self) -> None:
        steps = len(self.slope)
        expected = {"slope": "[T]", "bias": "[T, C]", "variance": "[T]"}
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if (
                tensor.dtype != torch.float32
                or tensor.dim() != (2 if name == "bias" else 1)
                or len(tensor) != steps
            ):
                raise QuantizationError(
                    f"sampler correction: {name} must be float32 {shape} with T = {steps}, found "
                    f"{tensor.dtype} {tuple(tensor.shape)}."
                )
            if not bool(tensor.isfinite().all()):
                raise QuantizationError(f"sampler correction: {name} must be finite.")
        if bool((self.slope <= -1).any()) or bool((self.variance < 0).any()):
            raise QuantizationError(
                "sampler correction: slopes must be above -1 and variances at least 0, found "
                f"{float(self.slope.min()):g} and {float(self.variance.min()):g}."
            )

    def corrected(self, prediction: Tensor, step: int) -> Tensor:
        """`[B, C, H, W]`: the prediction of `step` without bias and slope."""
        bias = self.bias[step].to(prediction)[:, None, None]
        return (prediction - bias) / (1.0 + float(self.slope[step]))

    def remaining_variance(self, step: int) -> float:
        """Variance of the noise that a corrected prediction of `step` still has."""
        return float(self.variance[step]) / (1.0 + float(self.slope[step])) ** 2

    @property
    def packed_bytes(self) -> int:
        """Bytes as stored."""
        return 4 * (self.slope.numel() + self.bias.numel() + self.variance.numel())
