"""How sampling with the quantized network departs from full precision, step by step.

Two numbers of one pass. The trajectory's divergence has everything in it, and grows along the way.
The output's shift is the part of a single prediction's error that has the same sign in every image
and position: where the output layer is quantized, mostly the rounding of its weights. It is small
in one prediction, and a colour cast after all steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench.errors import MetricError
from tfq_bench.metrics.resampled import bootstrap_value, mean_over_images
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tfq_bench.protocols import EvaluationInputs
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["Divergence", "Trajectory", "diverge"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Divergence:
    """Distances to full precision, per step t (row) and image (column).

    Args:
        state: float64 `[T, N]`, ||x^ - x|| / ||x|| of the state *after* step t. Errors of all steps
            so far add up in it.
        prediction: float64 `[T, N]`, ||e(x) - e^(x)|| / ||e(x)||, both networks at the
            full-precision state *before* step t. The error that step t alone brings in.
        shift: float64 `[T, N, C]`, mean over positions of e^(x) - e(x) there, with its sign.
        spread: float64 `[T]`, standard deviation of e(x) there, over images, channels and
            positions; at least 0.
    """

    state: np.ndarray
    prediction: np.ndarray
    shift: np.ndarray
    spread: np.ndarray


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
    states, predictions, shifts, spreads = [], [], [], []
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
        shifts.append((here.double() - exact.double()).flatten(2).mean(dim=2).cpu().numpy())
        spreads.append(float(exact.double().std(correction=0)))
    found = Divergence(
        state=np.stack(states),
        prediction=np.stack(predictions),
        shift=np.stack(shifts),
        spread=np.array(spreads),
    )
    if not (np.isfinite(found.state).all() and np.isfinite(found.prediction).all()):
        raise MetricError(
            "the sampler's states must stay finite to be compared with full precision; found "
            "others. The bit widths are probably too low for this method."
        )
    return found


class Trajectory:
    """`trajectory-divergence` after the last step and `output-shift` over all of them.

    None for full precision itself.

    Args:
        images: how many images are sampled again, from the first.
    """

    def __init__(self, *, images: int) -> None:
        self._images = images

    names = ("trajectory-divergence", "output-shift")

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Both with intervals over images, and curves over the steps in execution order.

        Of `trajectory-divergence`: `trajectory_divergence` (after the step) and
        `prediction_divergence` (at the step), means over images. Of `output-shift`, in units of the
        prediction's standard deviation at the step: `output_shift`, root mean square over channels,
        and `channel:<c>`, the mean error with its sign, so that all of them are a table [T, C].
        There is no shift where full precision predicts a constant at some step.
        """
        if inputs.reference_cell is None:
            return ()
        sampling = inputs.sampling
        parameters = {
            "formula": 1,
            "sampler": sampling["sampler"],
            "seed": sampling["seed"],
            "images": self._images,
        }
        found = diverge(
            inputs.loaded, inputs.lowered(), images=self._images, seed=int(sampling["seed"])
        )
        timesteps = tuple(float(t) for t in inputs.loaded.sampler.timesteps)
        values = [_divergence(found, parameters, timesteps, inputs)]
        if (found.spread > 0).all():
            values.append(_shift(found, parameters, timesteps, inputs))
        return tuple(values)


def _divergence(
    found: Divergence,
    parameters: Mapping[str, Any],
    timesteps: tuple[float, ...],
    inputs: EvaluationInputs,
) -> MetricValue:
    """The value `trajectory-divergence`."""
    definition = MetricDefinition(
        name="trajectory-divergence",
        unit="",
        direction="lower",
        summary="Mean relative L2 distance of the sampler's last state to that of full "
        "precision from the same noise. Its curves: of the state after each step, and of "
        "the prediction at full precision's states.",
        parameters=parameters,
    )
    value = mean_over_images(definition, found.state[-1], inputs, reference=inputs.reference_cell)
    series = {
        "timestep": timesteps,
        "trajectory_divergence": tuple(found.state.mean(axis=1).tolist()),
        "prediction_divergence": tuple(found.prediction.mean(axis=1).tolist()),
    }
    return replace(value, series=series)


def _shift(
    found: Divergence,
    parameters: Mapping[str, Any],
    timesteps: tuple[float, ...],
    inputs: EvaluationInputs,
) -> MetricValue:
    """The value `output-shift`: sqrt(mean over t and c of (m_tc / s_t)^2).

    m_tc is the mean of `shift` over images, s_t the `spread`, which resamples share.
    """
    definition = MetricDefinition(
        name="output-shift",
        unit="",
        direction="lower",
        summary="Systematic error of the prediction: its mean difference from full precision's at "
        "the same states, per step and channel, in units of that prediction's standard deviation "
        "at the step; root mean square over steps and channels.",
        parameters=parameters,
    )
    relative = found.shift / found.spread[:, None, None]
    images = relative.shape[1]

    def statistic(counts: np.ndarray) -> np.ndarray:
        means = np.einsum("rn,tnc->rtc", counts, relative) / images
        root: np.ndarray = np.sqrt((means**2).mean(axis=(1, 2)))
        return root

    table = relative.mean(axis=1)
    series = {
        "timestep": timesteps,
        "output_shift": tuple(np.sqrt((table**2).mean(axis=1)).tolist()),
        # To six digits: latents of 16 channels and 1000 steps are as many numbers.
        **{
            f"channel:{number}": tuple(float(f"{value:.6g}") for value in column)
            for number, column in enumerate(table.T.tolist())
        },
    }
    value = bootstrap_value(definition, statistic, inputs, n=images)
    return replace(value, reference=inputs.reference_cell, series=series)


def _distance(x: Tensor, reference: Tensor) -> np.ndarray:
    """float64 `[N]`: ||x - reference|| / ||reference|| of each image."""
    mine, other = x.double().flatten(1), reference.double().flatten(1)
    norm = other.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    distance: np.ndarray = ((mine - other).norm(dim=1) / norm).cpu().numpy()
    return distance
