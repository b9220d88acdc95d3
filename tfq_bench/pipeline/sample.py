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
from tfq_bench.pipeline.pixels import decoded, require_finite
from tfq_bench.quant.sampling import SampledBatch

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.types.networks import LoadedModel, Lowered
    from tfq_bench.types.tasks import Progress

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
    steps = len(loaded.sampler.timesteps)
    images = []
    for start in range(0, len(indices), batch):
        chosen = indices[start : start + batch]
        sampled = SampledBatch(loaded, chosen, seed=seed, purpose="sampling")
        for step in range(steps):
            lowered.step.set(step)
            x = sampled.network_input()
            prediction = sampled.predict(lowered.network, x, lowered.correction)
            sampled.advance(prediction, lowered.correction)
            done = start + len(chosen) * (step + 1) / steps
            progress(done / len(indices), "sampling")
        x = sampled.latents()
        require_finite(x, chosen, "the network")
        images.append(decoded(loaded.model, x, chosen))
    sizes = {tuple(batch.shape[1:]) for batch in images}
    if len(sizes) > 1:
        raise CellError(f"the model's `decode` gives images of several sizes: {sorted(sizes)}.")
    return torch.cat(images)


def save_images(images: Tensor, indices: Sequence[int], folder: Path) -> None:
    """Writes `images.safetensors` with `images` uint8 and `index` int64."""
    index = torch.tensor(list(indices), dtype=torch.int64)
    save_file({"images": images.contiguous(), "index": index}, folder / FILE)
