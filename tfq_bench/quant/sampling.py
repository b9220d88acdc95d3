"""A batch of images on its way through the sampler: whoever draws images steps through this.

Noise and conditions of an image depend on seed, purpose and the image's index alone, so what is
sampled for one purpose pairs, image by image, whichever network predicts.

What a quantized state knows of its network's error is taken out here and nowhere else, see
`SamplerCorrection`: slope and bias of the prediction, and of a stochastic sampler's noise what the
prediction brings already. Comparisons of backends with each other see predictions as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.sampler_noise import noise_share
from tfq_bench.seeds import noise
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.quant.state.sampler_correction import SamplerCorrection
    from tfq_bench.types.networks import LoadedModel

__all__ = ["SampledBatch"]


class SampledBatch:
    """Images between two steps of the sampler, from their initial noise on.

    Args:
        indices: which images, B of them.
        seed: of the noise. purpose: `sampling` or `calibration`; other noise of the same seed.

    Attributes:
        step: the step that is next, from 0.
        condition: `[B, ...]` by argument name.
    """

    def __init__(
        self, loaded: LoadedModel, indices: Sequence[int], *, seed: int, purpose: str
    ) -> None:
        self.step = 0
        self.condition = loaded.model.conditions(indices, device=loaded.device)
        self._loaded, self._indices = loaded, indices
        self._seed, self._purpose = seed, purpose
        self._state = loaded.sampler.initial(self._noise(purpose))

    def twin(self) -> SampledBatch:
        """The same images at the same step, to go on by other predictions."""
        other = copy.copy(self)
        other._state = self._state.clone()
        return other

    def network_input(self) -> Tensor:
        """`[B, C, H, W]`: what a network sees at this step."""
        return self._loaded.sampler.network_input(self._state, self.step)

    def predict(
        self, network: nn.Module, x: Tensor, correction: SamplerCorrection | None = None
    ) -> Tensor:
        """`[B, C, H, W]`: the guided prediction of a network at this step, corrected.

        Args:
            x: what `network_input` gave, of these images or of a twin.
            correction: `Lowered.correction` of the network; None for full precision.
        """
        timestep = self._loaded.sampler.timesteps[self.step]
        t = timestep_tensor(timestep, len(self._indices), self._loaded.device)
        found = guided_prediction(self._loaded.model, network, x, t, self.condition)
        return found if correction is None else correction.corrected(found, self.step)

    def advance(self, prediction: Tensor, correction: SamplerCorrection | None = None) -> None:
        """Goes to the next step.

        Args:
            correction: as of `predict`, which gave the prediction.
        """
        sampler = self._loaded.sampler
        z = self._noise(f"{self._purpose}-step-{self.step}") if sampler.stochastic else None
        if z is not None and correction is not None:
            left = correction.remaining_variance(self.step)
            z = z * noise_share(self._loaded, self.step, left)
        self._state = sampler.step(self._state, prediction, self.step, z)
        self.step += 1

    def latents(self) -> Tensor:
        """`[B, C, H, W]`: what the decoder would get now."""
        return self._loaded.sampler.final(self._state)

    def _noise(self, purpose: str) -> Tensor:
        shape, device = self._loaded.model.latent_shape, self._loaded.device
        return noise(self._seed, purpose, self._indices, shape, device=device)
