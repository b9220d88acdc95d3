"""Scales and zero points of activations: tables with one entry, or with one per sampler step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tfq_bench.errors import QuantizationError

__all__ = ["ActivationQParams", "AttentionQParams", "check_bits", "check_parameters"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationQParams:
    """Unsigned affine codes of a layer's input, one pair of parameters or one per sampler step.

    x^ = scale[k] * (q - zero_point[k]) with q in [0, 2^bits - 1]; k is the step index in execution
    order, or 0 when the table has one entry.

    Args:
        bits: 2 to 8.
        scale: float32 `[T]` or `[1]`, positive and finite.
        zero_point: int32, same shape, in [0, 2^bits - 1], so that 0 is exact.

    Raises:
        QuantizationError: a tensor that breaks these rules.
    """

    bits: int
    scale: Tensor
    zero_point: Tensor

    def __post_init__(self) -> None:
        check_bits(self.bits, "activations")
        check_parameters(self.scale, self.zero_point, self.bits, "activation table")

    @property
    def packed_bytes(self) -> int:
        """Bytes as stored: 4 a scale, 1 a zero point."""
        return 5 * self.scale.numel()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionQParams:
    """Codes of what the two products inside one attention multiply.

    Args:
        name: the attention's name in `network.named_modules()`.
        q, k, v: of queries, keys and values, all heads together.
        softmax: of the attention weights; they are not negative, so its zero points are 0.

    Raises:
        QuantizationError: another zero point in `softmax`.
    """

    name: str
    q: ActivationQParams
    k: ActivationQParams
    v: ActivationQParams
    softmax: ActivationQParams

    def __post_init__(self) -> None:
        if bool(self.softmax.zero_point.any()):
            raise QuantizationError(
                f"attention '{self.name}': expected zero points of 0 for the softmax, found "
                f"{int(self.softmax.zero_point.max())}."
            )

    def by_point(self) -> dict[str, ActivationQParams]:
        """The four tables by field name."""
        return {"q": self.q, "k": self.k, "v": self.v, "softmax": self.softmax}

    @property
    def packed_bytes(self) -> int:
        """Bytes as stored."""
        return sum(table.packed_bytes for table in self.by_point().values())


def check_bits(bits: int, what: str) -> None:
    """Nothing when quantized values may have `bits` bits; `what` begins the error's message.

    Raises:
        QuantizationError: they may not.
    """
    if not 2 <= bits <= 8:
        raise QuantizationError(f"{what} have 2 to 8 bits when quantized, found {bits}.")


def check_parameters(scale: Tensor, zero_point: Tensor, bits: int, what: str) -> None:
    """Nothing when scale and zero point (see `ActivationQParams`) suit codes of `bits` bits.

    Raises:
        QuantizationError: begins with `what`.
    """
    if (
        scale.dtype != torch.float32
        or zero_point.dtype != torch.int32
        or scale.dim() != 1
        or scale.shape != zero_point.shape
        or scale.numel() == 0
    ):
        raise QuantizationError(
            f"{what}: scale must be float32 and zero point int32, 1-D, of one length, found "
            f"{scale.dtype} {tuple(scale.shape)} and {zero_point.dtype} {tuple(zero_point.shape)}."
        )
    # What codes are multiplied with, and values divided by, must be finite too.
    widest = torch.cat([scale * (1 << bits), scale.reciprocal()])
    if not bool(torch.isfinite(widest).all()) or float(scale.min()) <= 0.0:
        raise QuantizationError(
            f"{what}: scales must be finite and positive, found {float(scale.min()):.3g} to "
            f"{float(scale.max()):.3g}."
        )
    low, high = int(zero_point.min()), int(zero_point.max())
    if low < 0 or high >= 1 << bits:
        raise QuantizationError(
            f"{what}: zero points of {bits} bits lie in [0, {(1 << bits) - 1}], found "
            f"[{low}, {high}]."
        )
