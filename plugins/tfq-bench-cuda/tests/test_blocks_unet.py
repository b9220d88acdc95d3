"""A whole U-Net with fused blocks against its simulation, and how the host looks into it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from tfq_bench.api import LoweringError
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.blocks import resnet
from tfq_bench_cuda.blocks.fuse import BLOCKS, fuse
from tfq_bench_cuda.blocks.fused import FusedBlock
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.layers import CudaLayer


class Opaque(ReferenceKernels):
    """As compiled kernels look from outside: named by their endings, no operator multiplies."""

    def name(self, spec):
        return f"{super().name(spec)} {spec.ending}".rstrip()

    def linear(self, *args, **kwargs):
        with _disable_current_modes():
            return super().linear(*args, **kwargs)

    def conv2d(self, *args, **kwargs):
        with _disable_current_modes():
            return super().conv2d(*args, **kwargs)


class Model:
    """What the lower stage asks of a model, about the tiny U-Net."""

    digest = "tiny"
    latent_shape = (3, 8, 8)
    dtype = torch.float32

    def predict(self, network, x, timestep, condition):
        """The predicted noise."""
        return network(x, timestep).sample

    def conditions(self, images, *, device):
        """None."""
        return {}

    def guidance(self, *, device):
        """None."""


@pytest.fixture
def unet(loaded):
    """The tiny U-Net as the lower stage takes it."""
    return dataclasses.replace(loaded, model=Model())


def fused(loaded, state):
    """The lowered network with fused blocks, and how each block is executed."""
    lowered = CudaBackend(kernels=Opaque()).lower(loaded, state)
    uses = fuse(lowered.network)
    kernels = tuple(
        dataclasses.replace(use, kernel=lowered.network.get_submodule(use.layer).kernel)
        for use in lowered.kernels
    )
    return dataclasses.replace(lowered, kernels=kernels), uses


@pytest.mark.parametrize("wbits", [8, 4])
def test_a_network_of_fused_blocks_passes_the_lower_stage(unet, make_state, wbits):
    """Watched layers, promised kernels and every step agree with the simulation."""
    state = make_state(wbits=wbits)
    lowered, uses = fused(unet, state)
    assert any(use.reason is None for use in uses)
    facts = lowering_facts(
        unet, state, lowered, simulate(unet, state), execution="lowered", batches=(3,)
    )
    assert len(state.layers) == facts["layers"]["checked"]
    assert len(state.layers) == sum(facts["executed"].values())
    # Unwatched, blocks are fused: codes that their norms move make up a part of what is allowed.
    # Whether any moves depends on how this processor's torch rounds a norm.
    assert facts["calls"]["worst"]["relative"] <= facts["calls"]["worst"]["limit"] / 4


def test_which_blocks_of_a_u_net_are_fused(unet, make_state):
    """All but its downsampler, whose convolution pads itself; and its end, which is no module."""
    lowered, uses = fused(unet, make_state())
    known = [m for m in lowered.network.modules() if type(m).__name__ in BLOCKS]
    assert len(known) + 1 == len(uses)
    assert ("output", ("conv_out",)) == (uses[-1].kind, uses[-1].layers)
    assert ["Downsample2D"] == [use.kind for use in uses if use.reason is not None]
    inside = {layer for use in uses for layer in use.layers}
    outside = {
        name
        for name, module in lowered.network.named_modules()
        if isinstance(module, CudaLayer) and name not in inside
    }
    assert {"conv_in", "time_embedding.linear_1", "time_embedding.linear_2"} == {
        name for name in outside if not name.endswith("time_emb_proj")
    }


def test_a_watched_block_shows_its_layers_and_gives_their_output(unet, images, make_state):
    """While layers are watched the bits are those of the simulation."""
    state = make_state()
    lowered, _ = fused(unet, state)
    t = torch.full((2,), 500)
    expected = unet.model.predict(simulate(unet, state).network, images, t, {})
    with watched_layers(unet, state, lowered) as watch:
        found = unet.model.predict(lowered.network, images, t, {})
    assert torch.equal(expected, found)
    assert state.layers.keys() == watch.checks.keys()


class Forgetful(resnet.FusedResnet):
    """Loses the time."""

    def _shift(self, temb):
        additions = super()._shift(temb)
        return dataclasses.replace(additions, shift=torch.zeros_like(additions.shift))


class Crooked(resnet.FusedResnet):
    """Exchanges height and width."""

    def fused(self, *args, **kwargs):
        return super().fused(*args, **kwargs).transpose(2, 3)


class Empty(resnet.FusedResnet):
    """Gives values that are no numbers."""

    def fused(self, *args, **kwargs):
        return super().fused(*args, **kwargs) * float("nan")


@pytest.mark.parametrize("broken", [Forgetful, Crooked, Empty])
def test_a_wrong_pass_is_named(unet, images, make_state, monkeypatch, broken):
    """The first block that differs from its layers stops the run."""
    monkeypatch.setattr(resnet, "FusedResnet", broken)
    state = make_state()
    lowered, _ = fused(unet, state)
    t = torch.full((2,), 500)
    with (
        pytest.raises(LoweringError, match=r"block 'down_blocks\.0\.resnets\.0': fused"),
        watched_layers(unet, state, lowered),
    ):
        unet.model.predict(lowered.network, images, t, {})


class Outer(FusedBlock):
    """A pass that runs all layers of what is inside it."""

    def __init__(self, name, block):
        super().__init__(name, block, [m for m in block.modules() if isinstance(m, CudaLayer)])

    def fused(self, *args, **kwargs):
        """As it was."""
        return self._single(*args, **kwargs)


def test_a_block_inside_a_fused_one_is_part_of_it(unet, make_state, monkeypatch):
    """It is neither fused by itself nor listed again."""
    monkeypatch.setattr(resnet, "Outer", Outer, raising=False)
    monkeypatch.setitem(BLOCKS, "UNetMidBlock2D", "tfq_bench_cuda.blocks.resnet:Outer")
    lowered, uses = fused(unet, make_state())
    assert ["mid_block"] == [use.name for use in uses if use.name.startswith("mid_block")]
    inside = [m for m in lowered.network.mid_block.modules() if m is not lowered.network.mid_block]
    assert all("forward" not in vars(module) for module in inside)


def test_a_class_of_the_same_name_is_no_known_block():
    """Only diffusers' own are, whatever others call theirs."""

    class Attention(nn.Module):
        """Of somebody else."""

    assert [] == fuse(nn.ModuleDict({"block": Attention()}))
