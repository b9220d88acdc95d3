"""The network that a backend makes: each quantized layer replaced by a kernel or its simulation."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tfq_bench.api import KernelUse, StepCursor
from tfq_bench.quant import (
    SIMULATED_KERNEL,
    SimulatedLayer,
    WeightedLayer,
    find_layer,
    int8_refusal,
    replace_layer,
)
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.layers import CudaConv2d, CudaLinear
from tfq_bench_cuda.weights import moved

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedLayer
    from tfq_bench_cuda.kernels.tiles import TileChoice
    from tfq_bench_cuda.kernels.unpack import Scratch

__all__ = ["KernelNetwork", "kernel_layer"]

_log = logging.getLogger("tfq_bench.cuda")

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class KernelNetwork:
    """A copied network whose layers are replaced one by one.

    Args:
        kernels: `Kernels` or `ReferenceKernels`.
        scratch: where packed weights are unpacked to; None leaves a byte each.

    Attributes:
        layers: those that have kernels, by name.
        reasons: why others are simulated.
        executed: counts of kernels that ran.
    """

    def __init__(
        self, network: nn.Module, step: StepCursor, kernels: Any, scratch: Scratch | None
    ) -> None:
        self.network, self.step, self.kernels, self.scratch = network, step, kernels, scratch
        self.executed: dict[str, int] = {}
        self.layers: dict[str, CudaConv2d | CudaLinear] = {}
        self.reasons: dict[str, str] = {}
        self._uses: list[Callable[[], KernelUse]] = []

    def replace(self, name: str, layer: QuantizedLayer, tiles: TileChoice, macs: int) -> None:
        """Puts what runs `layer` where the original is; its codes may be let go of afterwards."""
        original = find_layer(self.network, name)
        on_device = moved(layer, original.weight.device)
        reason = int8_refusal(on_device) or _original_reason(original)
        if reason is None:
            self.layers[name] = kernel_layer(
                on_device,
                original,
                self.kernels,
                self.step,
                self.executed,
                tiles,
                self.scratch,
            )
            replace_layer(self.network, name, self.layers[name])
        else:
            _log.warning("layer '%s' falls back to float32: %s", name, reason)
            self.reasons[name] = reason
            simulated = SimulatedLayer(layer, original, self.step, self.executed)
            replace_layer(self.network, name, simulated)
        bits = {"wbits": layer.wbits, "abits": layer.abits}
        self._uses.append(
            lambda: KernelUse(
                layer=name,
                kernel=SIMULATED_KERNEL if reason else self.layers[name].kernel,
                macs=macs,
                fallback=reason,
                **bits,
            )
        )

    def uses(self) -> list[KernelUse]:
        """How each layer runs, in the order in which they were replaced."""
        return [use() for use in self._uses]

    def prepare(self) -> None:
        """Compiles all products that the network runs, at once, so that every core compiles."""
        if self.scratch is not None and self.scratch.buffer is not None:
            # So that whoever adds up the network's bytes sees it.
            self.network.register_buffer("unpacked", self.scratch.buffer, persistent=False)
        self.kernels.prepare(spec for layer in self.layers.values() for spec in layer.running)

    def prepare_single(self) -> None:
        """The same for layers that run one by one."""
        self.kernels.prepare(
            spec for layer in self.layers.values() for spec in layer.specs(layer.single)
        )


def kernel_layer(
    layer: QuantizedLayer,
    original: WeightedLayer,
    kernels: Any,
    step: StepCursor,
    executed: MutableMapping[str, int],
    tiles: TileChoice,
    scratch: Scratch | None = None,
) -> CudaConv2d | CudaLinear:
    """What runs in place of `original`, on its device and in its type."""
    options: dict[str, Any] = {
        "tiles": tiles,
        "device": original.weight.device,
        "dtype": original.weight.dtype,
        "scratch": scratch if layer.wbits <= 4 else None,
    }
    if isinstance(original, nn.Linear):
        return CudaLinear(layer, kernels, step, executed, **options)
    return CudaConv2d(layer, _geometry(original), kernels, step, executed, **options)


def _original_reason(original: WeightedLayer) -> str | None:
    """Why the layer that is replaced cannot be a kernel, None when it can."""
    if original.weight.dtype not in _DTYPES:
        return f"a network in {original.weight.dtype}"
    if isinstance(original, nn.Linear):
        return None
    if isinstance(original.padding, str):
        return f"padding '{original.padding}' instead of numbers"
    if original.padding_mode != "zeros":
        return f"padding mode '{original.padding_mode}'"
    if original.groups > 1:
        return f"a convolution in {original.groups} groups"
    return None


def _geometry(conv: nn.Conv2d) -> Geometry:
    """The geometry of a convolution that `_original_reason` accepts."""
    assert not isinstance(conv.padding, str)
    return Geometry(
        kernel=(conv.kernel_size[0], conv.kernel_size[1]),
        stride=(conv.stride[0], conv.stride[1]),
        padding=(conv.padding[0], conv.padding[1]),
        dilation=(conv.dilation[0], conv.dilation[1]),
    )
