"""The two elementwise passes around a simulated layer's product, each one kernel on a CUDA device.

Written with tensor operations they are nine passes over memory, and took two thirds of a simulated
network's time. The kernels round where those operations round: `__fmul_rn` and `__fadd_rn` keep the
compiler from making one rounding of two, so both ways give equal bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from tfq_bench.quant.state.affine import centred_codes

__all__ = ["input_codes", "scaled_sums"]

# NaN passes every comparison as false, so it stays what it is, as in `clamp`.
_CODES = """
template <typename T> T centred_codes(T x, T scale, T zero_point, T top) {
  T code = __fadd_rn(rintf(__fmul_rn(x, __frcp_rn(scale))), zero_point);
  code = code < T(0) ? T(0) : (code > top ? top : code);
  return __fsub_rn(code, zero_point);
}
"""
_SCALED = """
template <typename T> T scaled_sums(T sum, T scale, T weight_scale) {
  return __fmul_rn(__fmul_rn(sum, scale), weight_scale);
}
"""
_SCALED_WITH_BIAS = """
template <typename T> T scaled_sums_with_bias(T sum, T scale, T weight_scale, T bias) {
  return __fadd_rn(__fmul_rn(__fmul_rn(sum, scale), weight_scale), bias);
}
"""


def input_codes(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """float32 codes of x less their zero point, see `centred_codes`.

    Args:
        scale, zero_point: float32 and int32, broadcastable to x.
    """
    if not x.is_cuda:
        return centred_codes(x, scale, zero_point, bits)
    return _kernel(_CODES)(x.float(), scale, zero_point.float(), top=float(2**bits - 1))


def scaled_sums(sums: Tensor, scale: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """float32 `sums * scale * weight_scale + bias`, rounded after each operation.

    Args:
        sums: float32, of the products of codes; may be overwritten.
        scale, weight_scale, bias: float32, broadcastable to `sums`.
    """
    if sums.is_cuda:
        if bias is None:
            return _kernel(_SCALED)(sums, scale, weight_scale)
        return _kernel(_SCALED_WITH_BIAS)(sums, scale, weight_scale, bias)
    sums = sums.mul_(scale).mul_(weight_scale)
    return sums if bias is None else sums.add_(bias)


@cache
def _kernel(code: str) -> Callable[..., Tensor]:
    """Compiled by NVRTC, which torch brings along, at its first call."""
    # `top` is of kernels with a number of their own; its value here is a default.
    numbers = {"top": 0.0} if "T top" in code else {}
    made: Callable[..., Tensor] = torch.cuda.jiterator._create_jit_fn(code, **numbers)
    return made
