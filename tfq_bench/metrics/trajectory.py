"""How sampling with the quantized network departs from full precision, step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from tfq_bench.errors import MetricError
from tfq_bench.metrics.resampled import mean_over_images
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.protocols import EvaluationInputs
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["Divergence", "Trajectory", "diverge"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Divergence:
    """Relative L2 distances to full precision, per step t (row) and image (column).

    Args:
        state: float64 `[T, N]`, ||x^ - x|| / ||x|| of the state *after* step t. Errors of all steps
            so far add up in it.
        prediction: float64 `[T, N]`, ||e(x) - e^(x)|| / ||e(x)||, both networks at the
            full-precision state *before* step t. The error that step t alone brings in.
    """

    state: np.ndarray
    prediction: np.ndarray


@torch.no_grad()
def diverge(loaded: LoadedModel, lowered: Lowered, *, images: int, seed: int) -> Divergence:
    """Both networks sample images 0 to `images - 1` side by side from the same noise.

    Three network calls per step, all images in one batch.

    Args:
        seed: the suite's sampling seed; noise and conditions are then those of the cell's images.

    Raises:
        MetricError: a trajectory leaves the finite numbers.
    """
    full = SampledBatch(loaded, range(images), seed=seed, purpose="sampling")
    mine = full.twin()
    states, predictions = [], []
    for step in range(len(loaded.sampler.timesteps)):
        lowered.step.set(step)
        x = full.network_input()
        exact = full.predict(loaded.network, x)
        here = there = full.predict(lowered.network, x, lowered.correction)
        if step > 0:  # both start from one state, so the first prediction serves twice
            there = mine.predict(lowered.network, mine.network_input(), lowered.correction)
        full.advance(exact)
        mine.advance(there, lowered.correction)
        states.append(_distance(mine.latents(), full.latents()))
        predictions.append(_distance(here, exact))
    found = Divergence(state=np.stack(states), prediction=np.stack(predictions))
    if not (np.isfinite(found.state).all() and np.isfinite(found.prediction).all()):
        raise MetricError(
            "the sampler's states must stay finite to be compared with full precision; found "
            "others. The bit widths are probably too low for this method."
        )
    return found


class Trajectory:
    """`trajectory-divergence` after the last step; none for full precision itself.

    Args:
        images: how many images are sampled again, from the first.
    """

    def __init__(self, *, images: int) -> None:
        self._images = images

    names = ("trajectory-divergence",)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """The mean over images with its interval.

        Carries the curves `timestep`, `trajectory_divergence` (after the step) and
        `prediction_divergence` (at the step), means over images in execution order.
        """
        if inputs.reference_cell is None:
            return ()
        sampling = inputs.sampling
        definition = MetricDefinition(
            name="trajectory-divergence",
            unit="",
            direction="lower",
            summary="Mean relative L2 distance of the sampler's last state to that of full "
            "precision from the same noise. Its curves: of the state after each step, and of "
            "the prediction at full precision's states.",
            parameters={
                "formula": 1,
                "sampler": sampling["sampler"],
                "seed": sampling["seed"],
                "images": self._images,
            },
        )
        seed = int(sampling["seed"])
        found = diverge(inputs.loaded, inputs.lowered(), images=self._images, seed=seed)
        series = {
            "timestep": tuple(float(t) for t in inputs.loaded.sampler.timesteps),
            "trajectory_divergence": tuple(found.state.mean(axis=1).tolist()),
            "prediction_divergence": tuple(found.prediction.mean(axis=1).tolist()),
        }
        value = mean_over_images(
            definition, found.state[-1], inputs, reference=inputs.reference_cell
        )
        return (replace(value, series=series),)


def _distance(x: Tensor, reference: Tensor) -> np.ndarray:
    """float64 `[N]`: ||x - reference|| / ||reference|| of each image."""
    mine, other = x.double().flatten(1), reference.double().flatten(1)
    norm = other.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    distance: np.ndarray = ((mine - other).norm(dim=1) / norm).cpu().numpy()
    return distance
