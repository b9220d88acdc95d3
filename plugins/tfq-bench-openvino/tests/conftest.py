"""A tiny U-Net with a quantized state made by hand: per-step tables, one split layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tfq_bench.api import LoadedModel
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.testing.by_hand import loaded_unet, quantized_unet


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """A `UNet2DModel` with fresh weights, attention and concatenations."""
    from diffusers import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet2DModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=8,
            norm_num_groups=8,
        )
    network.eval().requires_grad_(False)
    loaded = loaded_unet(network)
    loaded.model.latent_shape = (3, 8, 8)
    loaded.model.conditions = lambda images, *, device: {}
    loaded.model.guidance = lambda *, device: None
    return loaded


@pytest.fixture
def images() -> torch.Tensor:
    """Network inputs, float32 `[2, 3, 8, 8]`."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_state(loaded, images) -> Callable[..., QuantizedState]:
    """Makes a state of the tiny U-Net with ranges seen on one input: `make_state(wbits=4)`."""
    # The first residual block of the way up reads a concatenation.
    splits = {"up_blocks.0.resnets.0.conv1": 64}
    return lambda **bits: quantized_unet(loaded, images, splits=splits, **bits)
