"""The backend: which layers get a kernel, which do not and why, and the network made of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tfq_bench.api import KernelUse, LoadedModel, Lowered, StepCursor
from tfq_bench.quant import (
    SIMULATED_KERNEL,
    SimulatedLayer,
    WeightedLayer,
    check_state,
    copy_network,
    find_layer,
    finish_lowering,
    int8_refusal,
    replace_layer,
)
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.kernels.tiles import TileChoice
from tfq_bench_cuda.layers import CudaConv2d, CudaLinear
from tfq_bench_cuda.machine import check_machine

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedLayer, QuantizedState

__all__ = ["CudaBackend"]

_log = logging.getLogger("tfq_bench.cuda")

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class CudaBackend:
    """int8 convolutions and linear layers on tensor cores.

    Args:
        batch: images per network call for which tile sizes are chosen.
        kernels: what runs them, for tests; else they are compiled for the machine's GPU.
    """

    def __init__(self, *, batch: int = 32, kernels: Any = None) -> None:
        self.batch = batch
        self._kernels = kernels

    def check(self, *, device: str) -> None:
        """LoweringError when this machine cannot run the kernels; see `check_machine`."""
        check_machine(device)

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """A network of its own whose quantized layers run int8 kernels where there are any.

        Layers without a kernel are simulated in float32 and listed with the reason. Time
        projections that the state caches are looked up, as in the simulation. Every kernel is
        tested against exact integers when it is compiled.

        Raises:
            LoweringError: the machine lacks what the kernels need, a kernel is not exact, or the
                state was made for another model or sampler.
            QuantizationError: the state has a layer that the network lacks.
        """
        kernels, arch = self._kernels, "sm_90a"
        if kernels is None:
            arch = check_machine(loaded.device)
            kernels = _shared_kernels(arch, loaded.device)
        check_state(loaded, state)
        network = copy_network(loaded.network, state.layers)
        step = StepCursor(loaded.device)
        executed: dict[str, int] = {}
        layers: dict[str, CudaConv2d | CudaLinear] = {}
        reasons: dict[str, str] = {}
        for name, layer in state.layers.items():
            original = find_layer(network, name)
            reason = int8_refusal(layer) or _original_reason(original)
            if reason is None:
                tiles = self._tiles(loaded, layer, arch)
                layers[name] = _module(layer, original, kernels, step, executed, tiles)
            else:
                _log.warning("layer '%s' falls back to float32: %s", name, reason)
                reasons[name] = reason
        # All at once, so that every core compiles.
        kernels.prepare(spec for module in layers.values() for spec in module.specs(module.runs))
        uses: list[KernelUse] = []
        for name, layer in state.layers.items():
            if name in layers:
                replace_layer(network, name, layers[name])
            else:
                original = find_layer(network, name)
                replace_layer(network, name, SimulatedLayer(layer, original, step, executed))
            uses.append(
                KernelUse(
                    layer=name,
                    kernel=layers[name].kernel if name in layers else SIMULATED_KERNEL,
                    wbits=layer.wbits,
                    abits=layer.abits,
                    macs=loaded.topology.layer(name).macs,
                    fallback=reasons.get(name),
                )
            )
        uses.extend(finish_lowering(network, loaded, state, step, executed))
        _log.info(
            "%d layers on int8 kernels, %d fall back; %d bytes of weights on the device",
            len(layers),
            len(reasons),
            sum(module.weight_bytes for module in layers.values()),
        )
        return Lowered(
            network=network,
            step=step,
            execution="lowered",
            kernels=tuple(uses),
            executed=executed,
        )

    def _tiles(self, loaded: LoadedModel, layer: QuantizedLayer, arch: str) -> TileChoice:
        """For the rows that the layer has at `batch` images."""
        weights = sum(part.weight.numel() for part in layer.parts)
        rows = self.batch * loaded.topology.layer(layer.name).macs // weights
        return TileChoice(arch=arch, rows=max(rows, 1))


_KERNELS: dict[tuple[str, str], Kernels] = {}


def _shared_kernels(arch: str, device: str) -> Kernels:
    """Those of this process: compiled and tested once, also when many networks are lowered."""
    return _KERNELS.setdefault((arch, device), Kernels(arch, device))


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


def _module(
    layer: QuantizedLayer,
    original: WeightedLayer,
    kernels: Any,
    step: StepCursor,
    executed: dict[str, int],
    tiles: TileChoice,
) -> CudaConv2d | CudaLinear:
    """What runs in place of `original`, on its device and in its type."""
    where = {"device": original.weight.device, "dtype": original.weight.dtype}
    if isinstance(original, nn.Linear):
        return CudaLinear(layer, kernels, step, executed, tiles=tiles, **where)
    geometry = _geometry(original)
    return CudaConv2d(layer, geometry, kernels, step, executed, tiles=tiles, **where)
