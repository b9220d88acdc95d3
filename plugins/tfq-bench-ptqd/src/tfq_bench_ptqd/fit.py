"""The error of a quantized prediction, regressed on the full-precision one (arXiv:2305.10657).

Symbols, as in `tfq_bench.quant.SamplerCorrection`:

| symbol | |
|---|---|
| `e`, `e^` | predictions of the full-precision and of the quantized network |
| `d` | e^ - e |
| `k`, `b` | slope, and bias of each channel, in d = k e + b + r |
| `r` | what remains, of variance sigma_q^2 |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tfq_bench.api import QuantizationError

__all__ = ["StepError", "fit_error"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepError:
    """The error of one step.

    Args:
        slope: k, above -1.
        bias: float64 `[C]`.
        variance: sigma_q^2, mean square of r around its mean in each channel.
    """

    slope: float
    bias: Tensor
    variance: float


def fit_error(
    exact: Tensor,
    found: Tensor,
    *,
    slope: bool = True,
    bias: bool = True,
    negative_slopes: bool = False,
) -> StepError:
    """Least squares over images and positions: one slope for all channels, a bias for each.

    Args:
        exact, found: `[N, C, H, W]`, e and e^ of the same inputs.
        slope, bias: False for one that is to be 0 instead.
        negative_slopes: True keeps slopes below 0 instead of setting them to 0.

    Raises:
        QuantizationError: predictions that are not finite, or a slope of -1 or less, where the
            quantized prediction has nothing of the full-precision one left.
    """
    e = exact.double().movedim(1, 0).flatten(1)
    d = (found.double() - exact.double()).movedim(1, 0).flatten(1)
    if not bool(e.isfinite().all() and d.isfinite().all()):
        raise QuantizationError(
            "predictions must be finite for their error to be fitted; found others. The bit widths "
            "are probably too low for this method."
        )
    centred = e - e.mean(dim=1, keepdim=True)
    power = float(centred.square().sum())
    k = float((centred * d).sum()) / power if slope and power > 0.0 else 0.0
    if not negative_slopes:
        k = max(k, 0.0)
    if k <= -1.0:
        raise QuantizationError(
            f"the quantized prediction moves against that of full precision: expected a slope of "
            f"the error above -1, found {k:.3g}. The bit widths are probably too low for this "
            "method; a correction would turn the sign of what is left."
        )
    rest = d - k * e
    mean = rest.mean(dim=1)
    variance = float((rest - mean[:, None]).square().mean())
    return StepError(slope=k, bias=mean if bias else torch.zeros_like(mean), variance=variance)
