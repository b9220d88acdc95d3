"""The feed-forward of a transformer block between codes: GEGLU or GELU end in the next codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import kernel_layer, needs
from tfq_bench_cuda.kernels.norms import row_codes
from tfq_bench_cuda.kernels.operands import Additions
from tfq_bench_cuda.kernels.specs import ALIGNMENT, Activation, Ending
from tfq_bench_cuda.layers import CudaLinear

if TYPE_CHECKING:
    from tfq_bench_cuda.parts import Part

__all__ = ["FeedForward", "check_feed_forward"]


def check_feed_forward(block: nn.Module, path: str) -> None:
    """Nothing, when the `FeedForward` of a block at a path does what is computed here.

    Raises:
        Unfusable: another activation, or no kernels.
    """
    net = cast(Any, block.get_submodule(path)).net
    kind = type(net[0]).__name__
    needs(kind in ("GEGLU", "GELU"), f"the activation of '{path}' is {kind}")
    for name in ("net.0.proj", "net.2"):
        kernel_layer(block, f"{path}.{name}", CudaLinear)


class FeedForward:
    """`x + gate * feed_forward`.

    Where the second layer reads its input in two parts, or one of a width that is no multiple of
    32, the activation is torch's and the codes are made afterwards.

    Args:
        ff: of which `check_feed_forward` approves.
        gated: whether the output is multiplied by a gate before the residual is added.
    """

    def __init__(self, ff: nn.Module, *, gated: bool = False) -> None:
        self._activation = cast(Any, ff).net[0]
        self.inner, self.outer = (
            kernel_layer(ff, "net.0.proj", CudaLinear),
            kernel_layer(ff, "net.2", CudaLinear),
        )
        self.layers, self.tables = (self.inner, self.outer), self.inner.tables
        dtype = self.outer.runs.out
        self.outer.runs = Ending(gate=gated, residual=dtype, out=dtype)
        self._next = cast("Part", self.outer.parts[0])
        single = len(self.inner.parts) == len(self.outer.parts) == 1
        self.ends_in_codes = single and self._next.channels % ALIGNMENT == 0
        if self.ends_in_codes:
            self.inner.runs = Ending(
                activation=_ending(self._activation), out="int8", bits=self._next.bits
            )

    def __call__(self, codes: Sequence[Tensor], x: Tensor, gate: Tensor | None) -> Tensor:
        """`[B, S, C]`.

        Args:
            codes: int8 of the input, for each of `tables`.
            x: what is added, `[B, S, C]`. gate: float32 `[B, C]`, when it was made `gated`.
        """
        if self.ends_in_codes:
            given = Additions(inverse=self._next.inverse, zero_point=self._next.zero_point)
            hidden = [self.inner.product(codes, self.inner.runs, given)]
        else:
            y = self._activated(self.inner.product(codes, self.inner.runs))
            hidden = row_codes(y, step=self.outer.step.index, tables=self.outer.tables)
        additions = Additions(residual=x.view(-1, x.shape[-1]), gate=gate)
        return self.outer.product(hidden, self.outer.runs, additions).view(x.shape)

    def _activated(self, y: Tensor) -> Tensor:
        """The activation of `[M, C]`, in its type."""
        if _ending(self._activation) != "geglu":
            return cast(Tensor, self._activation.gelu(y))
        value, gate = y.chunk(2, dim=1)
        return value * cast(Tensor, self._activation.gelu(gate))


def _ending(activation: Any) -> Activation:
    """How a product ends that this module of diffusers follows."""
    if type(activation).__name__ == "GEGLU":
        return "geglu"
    return "gelu-tanh" if activation.approximate == "tanh" else "gelu"
