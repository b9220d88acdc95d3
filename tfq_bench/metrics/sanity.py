"""Whether a cell's images are images at all: a control that every run makes of every cell.

Closeness to full precision says nothing when full precision is broken: black against black is a
perfect match. The control gives no number. It fails, in words, where the images

- are one plain colour each (black, white, grey), in at least half of the cell;
- are all alike, whatever their noise;
- consist of black and white points: `saturated` of all values are 0 or 255. A network that
  predicts nothing leaves the noise of the sampler amplified by 1/√ᾱ_T, of which 97 to 99 % lie
  outside [-1, 1] (linear schedule, 5 steps and more); of MNIST, the most saturated of the usual
  data sets, 81 % are 0;

or where the full-precision network itself predicts the same for every noise, or one constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfq_bench.errors import MetricError
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.seeds import noise
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    import torch

    from tfq_bench.protocols import EvaluationInputs
    from tfq_bench.types import MetricValue

__all__ = ["Sanity", "image_fault", "network_fault"]

PLAIN = 1.0
"""Levels: an image whose values deviate less from their mean shows nothing."""
ALIKE = 0.5
"""Levels: images that deviate less from their mean are one image."""
BLOCK = 256
"""Images looked at at a time."""
ROUNDING = 1e-6


class Sanity:
    """No values; `evaluate` raises where images or network are broken.

    Args:
        saturated: share of values at 0 or 255 from which images count as black and white points;
            above 1 never.
    """

    names: tuple[str, ...] = ()

    def __init__(self, *, saturated: float) -> None:
        self._saturated = saturated

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Nothing.

        Raises:
            MetricError: the cell's images, or those that it is compared with, are broken.
        """
        reference = inputs.reference_images
        own, other = "its images", "the images of its full-precision reference"
        if reference is None:
            own = "the full-precision images" if inputs.state is None else own
        faults = [(own, image_fault(inputs.images, self._saturated))]
        if reference is not None:
            faults.append((other, image_fault(reference, self._saturated)))
        if inputs.state is None:
            faults.append(("the full-precision network", network_fault(inputs)))
        found = [f"{whose} {fault}" for whose, fault in faults if fault]
        if found:
            raise MetricError(
                f"{' and '.join(found)}. No number measured on such images, or against them, means "
                "anything; look at the model's weights, sampler and decoder first."
            )
        return ()


def image_fault(images: np.ndarray, saturated: float) -> str:
    """What is wrong with uint8 images `[N, H, W, 3]` in words, empty when nothing is."""
    n = len(images)
    black = white = plain = points = 0
    total = np.zeros(images.shape[1:])
    squares = np.zeros(images.shape[1:])
    for start in range(0, n, BLOCK):
        block = images[start : start + BLOCK]
        dark, bright = block == 0, block == 255
        black += int(dark.all(axis=(1, 2, 3)).sum())
        white += int(bright.all(axis=(1, 2, 3)).sum())
        plain += int((block.std(axis=(1, 2), dtype=np.float64).max(axis=1) < PLAIN).sum())
        points += int(dark.sum()) + int(bright.sum())
        values = block.astype(np.float64) - images[0]
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
    for count, words in ((black, "black"), (white, "white"), (plain, "one plain colour each")):
        if 2 * count >= n:
            return f"are {words} ({'all' if count == n else f'{count} of'} {n})"
    variance = squares / n - (total / n) ** 2
    if n > 1 and float(variance.mean()) < ALIKE**2:
        return f"are all alike (all {n}), whatever their noise"
    share = points / images.size
    if share >= saturated:
        return f"are black and white points: {share:.1%} of all values are 0 or 255"
    return ""


def network_fault(inputs: EvaluationInputs) -> str:
    """What is wrong with the first prediction of the full-precision network, empty when nothing."""
    import torch

    loaded = inputs.loaded
    model, sampler, device = loaded.model, loaded.sampler, loaded.device
    chosen = range(2)
    seed = int(inputs.sampling["seed"])
    with torch.no_grad():
        condition = model.conditions(chosen, device=device)
        start = noise(seed, "sampling", chosen, model.latent_shape, device=device)
        x = sampler.network_input(sampler.initial(start), 0)
        t = timestep_tensor(sampler.timesteps[0], len(chosen), device)
        found = guided_prediction(model, loaded.network, x, t, condition).double()
    if not bool(torch.isfinite(found).all()):
        return "predicts values that are not finite numbers"
    scale = float(found.abs().max())
    if scale == 0.0:
        return "predicts nothing but zeros"
    if _spread(found.flatten(2).std(dim=2), scale):
        return "predicts one constant for the whole image"
    if _spread((found[0] - found[1]).abs(), scale):
        return "predicts the same for every noise"
    return ""


def _spread(deviation: torch.Tensor, scale: float) -> bool:
    """True when there is no deviation beyond rounding."""
    return float(deviation.max()) <= ROUNDING * scale
