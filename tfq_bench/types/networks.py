"""A model on its device, what a backend makes of it, and the sampler step that both are at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfq_bench.types.cells import Execution

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.quant.state.sampler_correction import SamplerCorrection
    from tfq_bench.types.models import Model, Sampler
    from tfq_bench.types.topology import Topology

__all__ = ["KernelUse", "LoadedModel", "Lowered", "PlainState", "StepCursor", "timestep_tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model on its device, with everything a quantizer may look at.

    Args:
        network: full precision; quantizers must not modify it.
    """

    model: Model
    network: nn.Module
    topology: Topology
    sampler: Sampler
    device: str


class StepCursor:
    """The sampler step that per-timestep tables are read at, shared by all quantized layers.

    `index` is an int64 tensor of shape `[1]` on the device, so that moving it recompiles nothing
    and a captured CUDA graph sees the new value.
    """

    def __init__(self, device: str) -> None:
        import torch

        self.index = torch.zeros(1, dtype=torch.int64, device=device)

    def set(self, step: int) -> None:
        """Moves to step `step` (execution order)."""
        self.index.fill_(step)


def timestep_tensor(timestep: int | float, batch: int, device: str) -> Tensor:
    """`[batch]` filled with a timestep; int64, or float32 when it is fractional."""
    import torch

    dtype = torch.int64 if isinstance(timestep, int) else torch.float32
    return torch.full((batch,), timestep, dtype=dtype, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelUse:
    """How one quantized layer is executed.

    Args:
        kernel: for instance `onednn.qconv2d_pointwise u8s8` or `fp32 on dequantized integers`.
        fallback: None for a real low-bit kernel, else why there is none.
        wbits, abits: bits of its operands.
        macs: multiply-accumulates of one call for one image.
    """

    layer: str
    kernel: str
    wbits: int
    abits: int
    macs: int
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """An executable network.

    A run holds every quantized layer against the state's integers before it samples, see
    `tfq_bench.quant.watched_layers`: the layer is a module under its own name, which the network
    calls and which gives the layer's own output, sums exact and the epilogue in float32. The
    whole network is held against the simulation too, at every step and for every size of batch.

    Args:
        network: called through `Model.predict`, like the full-precision one.
        step: must be set before every call.
        kernels: one entry per quantized layer, in the state's order, then what
            `finish_lowering` returns.
        executed: how often each kernel really ran, counted by the layers themselves.
        details: what the backend tells of itself beside that, plain JSON, for the lower stage's
            result: blocks it fused, bytes on the device, seconds by phase. Nothing is checked
            against it. It is read after the network was called.
        correction: of the state, set by the host: what a sampler takes out of the predictions of
            this network. Backends leave it alone, and are held to the predictions without it.
    """

    network: nn.Module
    step: StepCursor
    execution: Execution
    kernels: tuple[KernelUse, ...] = ()
    executed: dict[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    correction: SamplerCorrection | None = None


class PlainState:
    """The state of a sampler that remembers nothing is x itself. For samplers to inherit."""

    def initial(self, noise: Tensor) -> Tensor:
        """`noise`."""
        return noise

    def network_input(self, state: Tensor, index: int) -> Tensor:  # noqa: ARG002
        """`state`."""
        return state

    def final(self, state: Tensor) -> Tensor:
        """`state`."""
        return state
