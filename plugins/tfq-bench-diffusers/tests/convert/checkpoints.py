"""Checkpoints to convert."""

from __future__ import annotations

import torch

from tfq_bench_diffusers.convert import convert


def draw(seed: int, *shape: int) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def converted(original, folder, tensors=None, suffix=".safetensors"):
    """The folder that a checkpoint of `tensors` becomes."""
    checkpoint = original.save(folder / f"model{suffix}", tensors)
    convert(checkpoint, original.family, folder / "out")
    return folder / "out"


def with_average(tensors, factor):
    """The checkpoint with a moving average of the U-Net's weights: `factor` times the weights."""
    network = [name for name in tensors if name.startswith("model.diffusion_model.")]
    flat = {"model_ema." + name[6:].replace(".", ""): factor * tensors[name] for name in network}
    counters = {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(5, dtype=torch.int32),
    }
    return {**tensors, **flat, **counters}
