"""The backend: which layers get a kernel, which do not and why, and the network made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.api import LoadedModel, Lowered, StepCursor, timestep_tensor
from tfq_bench.quant import check_state, copy_network, finish_lowering, guided_prediction
from tfq_bench_cuda.ahead import ahead
from tfq_bench_cuda.blocks.context import install_context
from tfq_bench_cuda.blocks.fuse import fuse
from tfq_bench_cuda.blocks.int8_attention import install_int8
from tfq_bench_cuda.blocks.share import share_modulations
from tfq_bench_cuda.blocks.up import read_both_parts
from tfq_bench_cuda.details import describe_blocks, describe_weights
from tfq_bench_cuda.graph import StepGraph
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.kernels.tiles import TileChoice
from tfq_bench_cuda.kernels.unpack import Scratch
from tfq_bench_cuda.machine import check_machine
from tfq_bench_cuda.network import KernelNetwork
from tfq_bench_cuda.products import describe_products

if TYPE_CHECKING:
    from torch import nn

    from tfq_bench.quant import QuantizedLayer, QuantizedState
    from tfq_bench_cuda.blocks.fuse import BlockUse

__all__ = ["PASSES", "CudaBackend"]

PASSES: dict[str, Callable[[nn.Module, Sequence[BlockUse]], list[BlockUse]]] = {
    "modulations": share_modulations,
    "concatenations": read_both_parts,
}
"""What is saved between fused blocks, by name; each changes times and hardly a digit."""


class CudaBackend:
    """int8 convolutions and linear layers on tensor cores.

    Args:
        batch: images per network call for which tile sizes are chosen.
        blocks: whether known blocks run as fused passes, see `blocks`.
        graph: whether a step is captured in a CUDA graph, see `graph`.
        weights: `int8`, or `packed` for two 4-bit weights a byte, see `kernels.unpack`.
        attention: `16-bit`, or `int8` for the first product of fused self-attention.
        without: of `PASSES` those that are left out, to measure what they are worth.
        kernels: what runs them, for tests; else they are compiled for the machine's GPU.
    """

    def __init__(
        self,
        *,
        batch: int = 32,
        blocks: bool = True,
        graph: bool = True,
        weights: str = "int8",
        attention: str = "16-bit",
        without: Collection[str] = (),
        kernels: Any = None,
    ) -> None:
        self.batch, self.blocks, self.graph, self.weights = batch, blocks, graph, weights
        self.attention, self.without = attention, frozenset(without)
        self._kernels = kernels

    def check(self, *, device: str) -> None:
        """LoweringError when this machine cannot run the kernels; see `check_machine`."""
        check_machine(device)

    def exactness(self, *, device: str) -> str:
        """That no kernel was tried yet: to compile one takes longer than a question may."""
        return f"{check_machine(device)}; each kernel is held against exact integers once compiled"

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
        clock = _Clock(kernels)
        device = torch.device(loaded.device)
        made = KernelNetwork(
            copy_network(loaded.network, state.layers),
            StepCursor(loaded.device),
            kernels,
            Scratch() if self.weights == "packed" else None,
        )
        for name, layer in ahead(state.layers):
            tiles = self._tiles(loaded, layer, arch)
            made.replace(name, layer, tiles, loaded.topology.layer(name).macs)
        others = finish_lowering(made.network, loaded, state, made.step, made.executed)
        blocks = fuse(made.network) if self.blocks else []
        for name, pass_over in PASSES.items():
            if name not in self.without:
                blocks = pass_over(made.network, blocks)
        int8 = install_int8(made.network, blocks) if self.attention == "int8" else {}
        context = install_context(made.network, blocks)
        clock.phase("weights")
        made.prepare()
        if self._kernels is None:
            _rehearse(loaded, made, kernels)
        clock.phase("kernels")
        step_graph = StepGraph(
            made.network,
            made.step,
            made.executed,
            device=device,
            refusal=self._graph_refusal(device),
            version=lambda: 0 if context is None else context.version,
            prepare=made.prepare_single,
        )
        step_graph.install()
        return Lowered(
            network=made.network,
            step=made.step,
            execution="lowered",
            kernels=(*made.uses(), *others),
            executed=made.executed,
            details={
                "architecture": arch,
                "blocks": describe_blocks(blocks, loaded, state),
                "attention": {"option": self.attention, "int8": int8},
                "text_once": context is not None,
                "weights": describe_weights(made.layers, made.scratch),
                "seconds": clock.seconds(),
                "graph": step_graph.facts,
                "products": describe_products(made.layers.values()),
            },
        )

    def _graph_refusal(self, device: torch.device) -> str | None:
        if not self.graph:
            return "the backend's option 'graph' is false"
        return None if device.type == "cuda" else f"the network is on device '{device}'"

    def _tiles(self, loaded: LoadedModel, layer: QuantizedLayer, arch: str) -> TileChoice:
        """For the rows that the layer has at `batch` images."""
        weights = sum(part.weight.numel() for part in layer.parts)
        rows = self.batch * loaded.topology.layer(layer.name).macs // weights
        return TileChoice(arch=arch, rows=max(rows, 1))


_KERNELS: dict[tuple[str, str], Kernels] = {}


def _shared_kernels(arch: str, device: str) -> Kernels:
    """Those of this process: compiled and tested once, also when many networks are lowered."""
    return _KERNELS.setdefault((arch, device), Kernels(arch, device))


def _rehearse(loaded: LoadedModel, made: KernelNetwork, kernels: Kernels) -> None:
    """One call that finds out which kernels the network still lacks, and compiles them together."""
    model, device = loaded.model, loaded.device
    # Of the network's own type, for a `predict` that leaves its input's type as it is.
    dtype = next(loaded.network.parameters()).dtype
    x = torch.zeros((1, *model.latent_shape), device=device, dtype=dtype)
    t = timestep_tensor(loaded.sampler.timesteps[0], 1, device)
    condition = model.conditions(range(1), device=device)
    # A hook of the network may keep what is the same at every step, and here no number is right.
    hooks = made.network._forward_pre_hooks
    kept = dict(hooks)
    hooks.clear()
    try:
        with kernels.rehearsal():
            guided_prediction(model, made.network, x, t, condition)
    finally:
        hooks.update(kept)
    made.executed.clear()


class _Clock:
    """Seconds by phase of a lowering; of `kernels`, compiling and self-test are told apart."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._before = dict(getattr(kernels, "seconds", {}))
        self._last = time.perf_counter()
        self._phases: dict[str, float] = {}

    def phase(self, name: str) -> None:
        """Ends a phase."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._phases[name], self._last = now - self._last, now

    def seconds(self) -> dict[str, float]:
        """By phase."""
        inside = getattr(self._kernels, "seconds", {})
        return self._phases | {name: spent - self._before[name] for name, spent in inside.items()}
