"""The tensors of a product, as kernels and their reference take them; all on one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench_cuda.kernels.specs import Ending

__all__ = ["NOTHING", "Additions", "Factors", "asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What a product is made of beside its codes.

    Args:
        weight: int8 `[weights, k]`, the channels of a filter's tap side by side.
        sums: int32 `[weights]`, sums of the weights; of a convolution `[classes, weights]`, see
            `borders`.
        positions: of `borders`, for a convolution.
        step: int64 `[1]`, the sampler step at which tables are read.
        scale: float32 `[T]` or `[1]`, of the codes. zero_point: int32, same shape.
        weight_scale, bias: float32 `[weights]`.
    """

    weight: Tensor
    sums: Tensor
    step: Tensor
    scale: Tensor
    zero_point: Tensor
    weight_scale: Tensor
    bias: Tensor
    positions: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What an `Ending` asks for; None where it does not.

    Args:
        partial: float32 `[M, n]`. shift, gate: float32 `[images, n]`; M is a multiple of images.
        residual: `[M, n]` of the ending's type.
        inverse: float32 `[T]` or `[1]`, 1 over the scale of the codes that come out.
        zero_point: int32, same shape.
    """

    partial: Tensor | None = None
    shift: Tensor | None = None
    gate: Tensor | None = None
    residual: Tensor | None = None
    inverse: Tensor | None = None
    zero_point: Tensor | None = None


NOTHING = Additions()


def asked(ending: Ending) -> list[str]:
    """The names of those `Additions` that an ending asks for, in their order."""
    wanted = {
        "partial": ending.partial,
        "shift": ending.shift,
        "gate": ending.gate,
        "residual": bool(ending.residual),
        "inverse": ending.out == "int8",
        "zero_point": ending.out == "int8",
    }
    return [name for name, given in wanted.items() if given]
