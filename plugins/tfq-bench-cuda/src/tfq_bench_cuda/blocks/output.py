"""The end of a convolutional U-Net, norm, SiLU and convolution, which is no module of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import FusedBlock, kernel_layer, needs
from tfq_bench_cuda.blocks.pixels import as_images, as_pixels, group_norm, norm_codes
from tfq_bench_cuda.kernels.specs import Ending
from tfq_bench_cuda.layers import CudaConv2d
from tfq_bench_cuda.parts import dtype_name

__all__ = ["FusedOutput"]


class FusedOutput(FusedBlock):
    """The norm ends in the codes of `conv_out`.

    The network calls three modules one after the other: norm and SiLU then pass on what they get,
    and the convolution does the work of all. While it is watched each does its own.

    Args:
        name: of the convolution in the network.
        network: with `conv_norm_out`, `conv_act` and `conv_out`.

    Raises:
        Unfusable: they are others than that, or the convolution has no kernel.
    """

    def __init__(self, name: str, network: Any) -> None:
        self.norm = group_norm(network, "conv_norm_out")
        self.silu: nn.Module = network.conv_act
        needs(type(self.silu) is nn.SiLU, f"its activation is a {type(self.silu).__name__}")
        self.conv = kernel_layer(network, "conv_out", CudaConv2d)
        super().__init__(name, self.conv, [self.conv])
        self._given: Tensor | None = None
        self._modules = [(self.norm, self.norm.forward), (self.silu, self.silu.forward)]

    def install(self) -> None:
        """Takes the places of all three."""
        super().install()
        for module, forward in self._modules:
            module.forward = _Passing(self, forward, first=module is self.norm)

    def __call__(self, x: Tensor) -> Tensor:
        """`[B, C_out, H, W]` of what the modules before gave."""
        if not self.watched:
            return self.fused(x)
        expected: Tensor = self._single(x)
        assert self._given is not None
        self._check(expected, self.fused(self._given), lambda: self._single(x))
        return expected

    def fused(self, x: Tensor) -> Tensor:
        """The same of the norm's input."""
        size = (x.shape[2], x.shape[3])
        ((codes),) = norm_codes(self.norm, as_pixels(x), [self.conv], silu=True)
        y = self.conv.product(codes, Ending(out=dtype_name(x.dtype)), size=size)
        return as_images(y, self.conv.geometry.output(size))


class _Passing:
    """The `forward` of norm or SiLU."""

    def __init__(self, output: FusedOutput, forward: Any, *, first: bool) -> None:
        self._output, self._forward, self._first = output, forward, first

    def __call__(self, x: Tensor) -> Tensor:
        """X itself, or while somebody watches what the module computes."""
        if not self._output.watched:
            return x
        if self._first:
            self._output._given = x
        found: Tensor = self._forward(x)
        return found
