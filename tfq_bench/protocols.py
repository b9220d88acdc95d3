"""What plugins implement. Protocols, not base classes: nothing is inherited.

The order of a cell: a `Model` is loaded; its `Sampler` gives the timesteps; a `Quantizer` says
what it must see, sees it and returns a `QuantizedState`; a `Backend` turns that into a `Lowered`
network; the sampler draws images with it; each `Metric` reads what came out. `Model` and `Sampler`
are in `types.models`. A `Contestant` takes the place of quantizer and backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tfq_bench.quant.state.quantized_state import QuantizedState
    from tfq_bench.trends.drift import Trend
    from tfq_bench.trends.series import Series
    from tfq_bench.types import CalibrationData, CalibrationNeeds, MetricValue
    from tfq_bench.types.networks import LoadedModel, Lowered
    from tfq_bench.types.tasks import Done, Progress, Start, Task, Work

__all__ = [
    "Backend",
    "ChecksImages",
    "Contestant",
    "EvaluationInputs",
    "Executor",
    "HistoryRenderer",
    "Metric",
    "NamesValues",
    "Quantizer",
    "Renderer",
    "SaysExactness",
]


class Quantizer(Protocol):
    """A method. The factory is called with `scheme: Scheme` and the options as keywords.

    One that is announced with `wraps=True` gets `base: Quantizer` too, the method whose state it
    changes; the base is to get the data that it asks for, and the generator as it came.
    """

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


class Backend(Protocol):
    """Turns a quantized state into something that runs."""

    def check(self, *, device: str) -> None:
        """LoweringError when this machine lacks what the backend needs, and what that is."""

    def lower(self, loaded: LoadedModel, state: QuantizedState) -> Lowered:
        """A network of its own; `loaded.network` stays as it is."""


@runtime_checkable
class SaysExactness(Protocol):
    """What a `Backend` may have in addition, for `tfq-bench doctor`."""

    def exactness(self, *, device: str) -> str:
        """Which of its kernels are exact on this machine, as a phrase without a full stop.

        Called once `check` has returned for `device`. It may try kernels for a second; what takes
        longer, such as compiling, it leaves to `Backend.lower` and says so.
        """


class Contestant(Protocol):
    """A tool that quantizes and executes by itself, so that there is no `QuantizedState`.

    It is called like a quantizer, with `scheme: Scheme` and the options as keywords; its provider
    is a `QuantizerProvider(external=True)`. Model, calibration data, noise and metrics are those of
    every other cell. Layers, ranges and arithmetic are the tool's own, which nothing is held
    against; records and reports say so.
    """

    def check(self, *, device: str) -> None:
        """Returns at once and imports no tool.

        Raises:
            LoweringError: what is missing here, and the command that installs it. Its cells are
                then left out with this reason.
        """

    @property
    def packages(self) -> tuple[str, ...]:
        """`name==version` of what quantizes and what executes; read where `check` has returned."""

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """As of a `Quantizer`."""

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,
        progress: Progress,
        folder: Path,
    ) -> None:
        """Writes what the tool makes of the network into the empty `folder`, without pickle.

        Never modifies `loaded.network`. The bytes of these files are the cell's size.
        """

    def load(self, loaded: LoadedModel, folder: Path) -> Lowered:
        """What `quantize` wrote, ready to run, with the execution `external`.

        `kernels` has an entry for each layer of the topology whose weights are quantized, as it is
        really executed: with the bits of its operands, and a fallback where it is float
        arithmetic. `executed` counts them when they run. `details` has `settings`, which the tool
        was called with, and `remarks`, sentences of what a reader must know of the numbers.
        """


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
        """The quantized state, None for full precision and for contestants."""

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


class HistoryRenderer(Protocol):
    """Draws numbers over time; its provider says `renders="history"`."""

    def render(self, series: Sequence[tuple[Series, Trend]], target: Path) -> None:
        """Writes `target`: every series, see `trends`, with its verdict."""
