"""What plugins implement. Protocols, not base classes: nothing is inherited.

The order of a cell: a `Model` is loaded; its `Sampler` gives the timesteps; a `Quantizer` says
what it must see, sees it and returns a `QuantizedState`; a `Backend` turns that into a `Lowered`
network; the sampler draws images with it; each `Metric` reads what came out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tfq_bench.border import (
    CalibrationData,
    CalibrationNeeds,
    Guidance,
    MetricValue,
    Topology,
)
from tfq_bench.providers import Execution

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from tfq_bench.executors.base import Done, Start, Work
    from tfq_bench.pipeline.tasks import Task
    from tfq_bench.quant.state import QuantizedLayer, QuantizedState

__all__ = [
    "Backend",
    "ChecksImages",
    "EvaluationInputs",
    "Executor",
    "KernelUse",
    "LoadedModel",
    "Lowered",
    "Metric",
    "Model",
    "NamesValues",
    "PlainState",
    "Progress",
    "Prompted",
    "Quantizer",
    "Remarks",
    "Renderer",
    "Sampler",
    "StepCursor",
    "timestep_tensor",
]

Progress = Callable[[float, str], None]
"""Called with the finished fraction in [0, 1] and a short text."""


class Sampler(Protocol):
    """A sampler with a fixed list of timesteps. Pure: it keeps nothing and draws nothing.

    What it must remember between steps (earlier predictions of a multistep method) is part of the
    state that it is given and returns: one tensor `[B, k*C, H, W]` whose meaning is its own. Most
    have x itself as state and inherit `PlainState`.
    """

    @property
    def timesteps(self) -> tuple[int | float, ...]:
        """What is passed to the network, in execution order (noisiest first)."""

    @property
    def definition(self) -> Mapping[str, Any]:
        """JSON-able description; part of every metric's definition."""

    def initial(self, noise: Tensor) -> Tensor:
        """The state at step 0 from standard normal noise `[B, C, H, W]`."""

    def network_input(self, state: Tensor, index: int) -> Tensor:
        """What the network reads at step `index`: `[B, C, H, W]`."""

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:
        """The next state from the network's prediction `[B, C, H, W]` at `index`."""

    def final(self, state: Tensor) -> Tensor:
        """The sample x `[B, C, H, W]` that a state holds; what is decoded after the last step."""

    @property
    def stochastic(self) -> bool:
        """Whether `step` wants noise `[B, C, H, W]`."""


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


class Model(Protocol):
    """A diffusion model: a network, and what is around it."""

    @property
    def digest(self) -> str:
        """Content digest of weights and configuration; part of every stage key."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the state the sampler works on."""

    @property
    def dtype(self) -> torch.dtype:
        """What its full-precision network computes in; the reference that others are held to."""

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """A fresh network in eval mode, without gradients."""

    def predict(
        self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """The network's prediction for x `[B, C, H, W]` and timestep `[B]`, one row a sample.

        Float32 in, float32 out, whatever the network computes in. Without guidance, which the
        harness applies, see `guidance`.
        """

    def topology(self, network: nn.Module) -> Topology:
        """Layers, blocks and temporal modules in execution order."""

    def sampler(self, name: str, steps: int) -> Sampler:
        """The sampler called `name` with `steps` steps; SuiteError when it has none such."""

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:
        """Conditioning `[B, ...]` of the images with these indices; empty when unconditional."""

    def guidance(self, *, device: str) -> Guidance | None:
        """Classifier-free guidance of its sampling, None without."""

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images `[B, H, W, 3]` on the CPU from final latents."""

    def reference(self, extractor: str) -> Path | None:
        """File with reference statistics for a feature extractor, None when there is none."""


@runtime_checkable
class Prompted(Protocol):
    """What a `Model` may have in addition, for metrics that compare images with text."""

    def prompts(self, images: Sequence[int]) -> Sequence[str] | None:
        """What the images with these indices are to show, None when they have no text."""


@runtime_checkable
class Remarks(Protocol):
    """What a `Model` may have in addition: how it was read, for one line of `plan`."""

    def remarks(self, sampler: str) -> Sequence[str]:
        """Short phrases, such as which keys of its files change nothing when `sampler` is used."""


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


class Quantizer(Protocol):
    """A method. The factory is called with `scheme: Scheme` and the options as keywords."""

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """Which sampler states it must see, out of `images` calibration images."""

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,
        progress: Progress,
        checkpoint: Path | None = None,
    ) -> QuantizedState:
        """The quantized network as data. Never modifies `loaded.network`.

        Args:
            generator: CPU; all that is random comes from it.
            checkpoint: a folder for this call alone (it may not exist yet) in which a long method
                keeps what is finished: after a stop, the same call finds it again. Gone once the
                state is stored.
        """


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
    """

    network: nn.Module
    step: StepCursor
    execution: Execution
    kernels: tuple[KernelUse, ...] = ()
    executed: dict[str, int] = field(default_factory=dict)


class Backend(Protocol):
    """Turns a quantized state into something that runs."""

    def check(self, *, device: str) -> None:
        """LoweringError when this machine lacks what the backend needs, and what that is."""

    def supports(self, layer: QuantizedLayer) -> str | None:
        """None when it has a kernel for the layer, else the reason why it falls back."""

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """A network of its own; `loaded.network` stays as it is."""


class EvaluationInputs(Protocol):
    """What a metric may read of a cell. Everything is computed when first asked for."""

    @property
    def images(self) -> np.ndarray:
        """uint8 `[N, H, W, 3]`, ordered by image index; read-only, as every array here."""

    @property
    def reference_images(self) -> np.ndarray | None:
        """The same of the full-precision cell; None when this *is* that cell."""

    @property
    def reference_cell(self) -> str | None:
        """Key of the full-precision cell; None when this *is* that cell."""

    @property
    def pairing(self) -> str:
        """Id of noise, indices and conditions: equal for cells whose images pair."""

    @property
    def sampling(self) -> Mapping[str, Any]:
        """Sampler definition and number of images; belongs into every definition."""

    @property
    def state(self) -> QuantizedState | None:
        """The quantized state, None for full precision."""

    @property
    def loaded(self) -> LoadedModel:
        """The full-precision model."""

    def lowered(self) -> Lowered:
        """The cell's network, built anew."""

    def facts(self, stage: str) -> Mapping[str, Any]:
        """`result.json` of a finished stage: calibrate, quantize, lower, measure."""

    def cached(self, name: str, compute: Callable[[], np.ndarray], *, of: str) -> np.ndarray:
        """`compute()`, stored beside the images; `of` is `cell` or `reference`."""


class Metric(Protocol):
    """A family of numbers about one cell. May be `NamesValues` and `ChecksImages` in addition.

    What it returns is checked before it is stored, and what it raises fails this metric of the
    cell alone. Arrays and networks that it is given are read-only.
    """

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Finite values, each with its definition; every name once.

        Raises:
            MetricError: it cannot be computed, and why.
        """


@runtime_checkable
class NamesValues(Protocol):
    """What a `Metric` may have in addition, so that a plan refuses two numbers of one name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every value that it gives for any cell; known from its options alone."""


@runtime_checkable
class ChecksImages(Protocol):
    """What a `Metric` may have in addition, so that a plan knows what N is too small for it."""

    def check(self, *, images: int) -> str:
        """One sentence when numbers of `images` images a cell want caution, else empty.

        Raises:
            MetricError: it cannot judge so few; says how many it needs.
        """


class Executor(Protocol):
    """Places tasks on slots. See `tfq_bench.executors`."""

    def run(self, tasks: tuple[Task, ...], work: Work, *, start: Start, done: Done) -> None:
        """Runs every task whose dependencies succeeded.

        Args:
            tasks: dependencies first.
            work: runs one task in the calling process.
            start: called before a task runs.
            done: called once per task, also for those that a failure keeps from starting.
        """


class Renderer(Protocol):
    """Writes a report of one or more run folders."""

    def render(self, runs: Sequence[Path], target: Path) -> None:
        """Writes `target`; StoreError when a run cannot be read."""
