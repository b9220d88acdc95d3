"""What a metric reads of a cell, without a run: images of the tiny model in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfq_bench.keys import digest
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.sample import draw
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme

if TYPE_CHECKING:
    import numpy as np

    from tfq_bench.quant.state.quantized_state import QuantizedState
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["TinyInputs", "tiny_state"]


def tiny_state(loaded: LoadedModel, scheme: Scheme) -> QuantizedState:
    """A round-to-nearest state of a loaded model, from eight calibration images."""
    quantizer = RoundToNearest(scheme=scheme)
    data = capture(
        loaded,
        quantizer.calibration_needs(loaded, images=8),
        seed=1,
        batch=8,
        progress=_ignore,
    )
    return quantizer.quantize(loaded, data, generator=generator(0, "tiny-state"), progress=_ignore)


class TinyInputs:
    """An `EvaluationInputs` of the tiny model, quantized by round to nearest and simulated.

    Args:
        images: how many.
        scheme: of the cell; `Scheme()` is the full-precision cell, which has no reference.
        facts: what `facts` returns, by stage.
    """

    def __init__(
        self,
        *,
        images: int = 16,
        scheme: Scheme | None = None,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.loaded = load_tiny()
        scheme = Scheme(wbits=4, abits=8) if scheme is None else scheme
        full = scheme.label == "FP"
        self.state = None if full else tiny_state(self.loaded, scheme)
        self.reference_cell = None if full else "reference"
        self.sampling: Mapping[str, Any] = {
            "sampler": dict(self.loaded.sampler.definition),
            "images": images,
            "seed": 0,
        }
        self.pairing = digest({"model": self.loaded.model.digest, **self.sampling}, 12)
        self.images: np.ndarray = self._draw(self.lowered(), images)
        self.reference_images: np.ndarray | None = (
            None if full else self._draw(simulate(self.loaded, None), images)
        )
        self._facts = facts or {}
        self._cache: dict[tuple[str, str], np.ndarray] = {}

    def lowered(self) -> Lowered:
        """The cell's network, built anew."""
        return simulate(self.loaded, self.state)

    def facts(self, stage: str) -> Mapping[str, Any]:
        """What was given for the stage, else nothing."""
        return self._facts.get(stage, {})

    def cached(self, name: str, compute: Callable[[], np.ndarray], *, of: str) -> np.ndarray:
        """`compute()`, remembered by `name` and `of`."""
        if (name, of) not in self._cache:
            self._cache[name, of] = compute()
        return self._cache[name, of]

    def _draw(self, lowered: Lowered, images: int) -> np.ndarray:
        drawn = draw(self.loaded, lowered, range(images), seed=0, batch=images, progress=_ignore)
        array: np.ndarray = drawn.numpy()
        return array


def _ignore(fraction: float, text: str) -> None:
    """Progress that nobody looks at."""
