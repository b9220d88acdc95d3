"""`Transformer2DModel` of U-Nets, fused around its blocks, against its layers one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from tfq_bench.api import LoweringError
from tfq_bench_cuda.blocks.fuse import fuse

from .kernel_blocks import difference, numbers, swap_layers

CHANNELS, SIZE, TEXT, WORDS = 32, (6, 4), 24, 7

LIMITS = {torch.float32: 2.0**-9, torch.bfloat16: 2.0**-6}
"""As in `test_blocks_transformer`."""


class Network(nn.Module):
    """A transformer as a U-Net calls it."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.transformer = Transformer2DModel(
                num_attention_heads=4,
                attention_head_dim=8,
                in_channels=CHANNELS,
                norm_num_groups=8,
                cross_attention_dim=TEXT,
                **changes,
            )
            self.transformer.norm.weight.data.uniform_(0.5, 1.5)
            self.transformer.norm.bias.data.normal_(std=0.2)
        self.eval().requires_grad_(False)

    def forward(self, **call: Any) -> torch.Tensor:
        return self.transformer(**call, return_dict=False)[0]


def given(dtype: torch.dtype = torch.float32, *, last: bool = False) -> dict[str, torch.Tensor]:
    """Two images, in one of both layouts, and a text with a mask of its words."""
    x = numbers(2, CHANNELS, *SIZE, seed=1) * 2 + numbers(1, CHANNELS, 1, 1, seed=2)
    mask = (torch.arange(WORDS) < torch.tensor([[4], [6]])).to(dtype)
    return {
        "hidden_states": (x.contiguous(memory_format=torch.channels_last) if last else x).to(dtype),
        "encoder_hidden_states": numbers(2, WORDS, TEXT, seed=3).to(dtype),
        "encoder_attention_mask": mask,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
@pytest.mark.parametrize("linear", [False, True], ids=["convolutions", "linear"])
def test_transformer_gives_what_its_layers_give_one_by_one(linear, last, dtype):
    """Both kinds of projections and layouts, at every step; channels last comes out."""
    network = Network(use_linear_projection=linear, num_layers=2).to(dtype)
    step = swap_layers(network, lambda: network(**given(dtype)))
    inputs, expected = given(dtype, last=last), []
    for index in range(3):
        step.set(index)
        expected.append(network(**inputs))
    outer, *inner = fuse(network)
    assert (2, [10, 10]) == (len(outer.layers), [len(use.layers) for use in inner])
    assert all(use.reason is None for use in (outer, *inner))
    for index in range(3):
        step.set(index)
        found = network(**inputs)
        assert difference(expected[index], found) < LIMITS[dtype]
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(network.transformer(**inputs).sample, torch.Tensor)


def test_blocks_inside_may_stay_as_they_are():
    """One that is not fused has its reason; the transformer around it is fused."""
    network = Network(num_layers=2)
    step = swap_layers(network, lambda: network(**given()))
    network.transformer.transformer_blocks[1].set_chunk_feed_forward(2)
    expected = network(**given())
    reasons = {use.name.rpartition(".")[2]: use.reason for use in fuse(network)}
    assert reasons["transformer"] is None
    assert [None, "its feed-forward runs in chunks"] == [reasons["0"], reasons["1"]]
    step.set(0)
    assert difference(expected, network(**given())) < LIMITS[torch.float32]


def test_a_projection_without_a_kernel_is_named():
    """The blocks inside are fused all the same."""
    network = Network()
    swap_layers(network, lambda: network(**given()))
    network.transformer.proj_out = nn.Conv2d(CHANNELS, CHANNELS, 1)
    outer, inner = fuse(network)
    assert "layer 'proj_out' has no int8 kernel, it is a Conv2d" == outer.reason
    assert inner.reason is None


def test_a_watched_projection_runs_both_ways():
    """The output is the single layers'; a wrong pass is found."""
    network = Network(use_linear_projection=True)
    swap_layers(network, lambda: network(**given()))
    expected = network(**given())
    fuse(network)
    network.transformer.proj_in.register_forward_hook(lambda *_: None)
    assert difference(expected, network(**given())) < LIMITS[torch.float32]
    network.transformer.norm.register_forward_hook(lambda _, __, y: y + 1)
    with pytest.raises(LoweringError, match="block 'transformer': fused, its output"):
        network(**given())
