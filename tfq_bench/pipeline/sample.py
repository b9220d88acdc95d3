"""Images of one shard: the sampler, driven by the cell's own network.

Image `i` starts from noise that depends on the suite's sampling seed and `i` alone, so the images
of different cells pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from tfq_bench.errors import CellError
from tfq_bench.networks import timestep_tensor
from tfq_bench.pipeline.pixels import decoded, require_finite
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.seeds import noise

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.networks import LoadedModel, Lowered
    from tfq_bench.protocols import Progress

__all__ = ["draw", "save_images"]

FILE = "images.safetensors"


@torch.no_grad()
def draw(
    loaded: LoadedModel,
    lowered: Lowered,
    indices: Sequence[int],
    *,
    seed: int,
    batch: int,
    progress: Progress,
) -> Tensor:
    """uint8 images `[len(indices), H, W, 3]`.

    Args:
        batch: images per network call. Batches start at the shard's first index, so their
            composition is fixed by the plan.

    Raises:
        CellError: the network or the decoder gave values that are not finite, or the decoder
            something other than images.
    """
    model, sampler = loaded.model, loaded.sampler
    images = []
    for start in range(0, len(indices), batch):
        chosen = indices[start : start + batch]
        condition = model.conditions(chosen, device=loaded.device)
        start_noise = noise(seed, "sampling", chosen, model.latent_shape, device=loaded.device)
        state = sampler.initial(start_noise)
        for step, timestep in enumerate(sampler.timesteps):
            lowered.step.set(step)
            t = timestep_tensor(timestep, len(chosen), loaded.device)
            x = sampler.network_input(state, step)
            prediction = guided_prediction(model, lowered.network, x, t, condition)
            z = None
            if sampler.stochastic:
                purpose = f"sampling-step-{step}"
                z = noise(seed, purpose, chosen, model.latent_shape, device=loaded.device)
            state = sampler.step(state, prediction, step, z)
            done = start + len(chosen) * (step + 1) / len(sampler.timesteps)
            progress(done / len(indices), "sampling")
        x = sampler.final(state)
        require_finite(x, chosen, "the network")
        images.append(decoded(model, x, chosen))
    sizes = {tuple(batch.shape[1:]) for batch in images}
    if len(sizes) > 1:
        raise CellError(f"the model's `decode` gives images of several sizes: {sorted(sizes)}.")
    return torch.cat(images)


def save_images(images: Tensor, indices: Sequence[int], folder: Path) -> None:
    """Writes `images.safetensors` with `images` uint8 and `index` int64."""
    index = torch.tensor(list(indices), dtype=torch.int64)
    save_file({"images": images.contiguous(), "index": index}, folder / FILE)
