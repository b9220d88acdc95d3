"""uint8 codes of activations: bit by bit those of `tfq_bench.quant`, in as few passes as torch can.

`torch.quantize_per_tensor` is one vectorised pass, a seventh of the time of the same expression in
elementary operators. Some builds of torch add the zero point before they round, in float32: what
lies within a few bits of a tie then gets another code (torch 2.13.0+cpu without AVX-512 does, in
one of 250,000 values). There the rounding is done before, in two more passes.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

from tfq_bench.quant import quantize as elementary

__all__ = ["quantize", "rounds_first"]


def quantize(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    """uint8 codes `clamp(round(x * (1/scale)) + zero_point, 0, 2^bits - 1)` of a tensor.

    The reciprocal and the product are taken in float32 and ties go to the even code; the memory
    format of `x` is kept.
    """
    x = x.float()
    if not rounds_first():
        # 1 / scale is rounded to float64 and then to float32, which gives the float32 reciprocal.
        x, scale = x.mul(1 / scale).round_(), 1.0
    code = _quantize(x, scale, zero_point)
    return code if bits == 8 else code.clamp_(max=2**bits - 1)


@functools.cache
def rounds_first() -> bool:
    """Whether torch rounds before it adds the zero point, tried within two bits of every tie."""
    ties = torch.arange(-256, 257) + 0.5
    for scale in (1.0, 0.0371):
        exact = torch.tensor(scale)
        at = ties * exact
        up, down = torch.nextafter(at, at + 1), torch.nextafter(at, at - 1)
        x = torch.cat([at, up, down, torch.nextafter(up, at + 1), torch.nextafter(down, at - 1)])
        for zero_point in (0, 1, 37, 128, 255):
            expected = elementary(x, exact, torch.tensor(zero_point), 8)
            with warnings.catch_warnings():
                # Torch announces once per process that quantized dtypes will leave in a later
                # release. Nobody who runs a benchmark can act on that; `check_machine` says when
                # it has happened.
                warnings.simplefilter("ignore", UserWarning)
                found = _quantize(x, exact.item(), zero_point)
            if not torch.equal(expected, found):
                return False
    return True


def _quantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    stored = torch.quantize_per_tensor(x, scale, zero_point, torch.quint8)
    # Read through its storage, because `int_repr()` would copy it.
    code = torch.empty(0, dtype=torch.uint8)
    code.set_(stored.untyped_storage(), 0, stored.size(), stored.stride())
    return code
