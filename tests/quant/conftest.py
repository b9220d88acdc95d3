"""The tiny model, loaded, with calibration data and states of it."""

import pytest
import torch

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.state.affine import dequantize, per_channel
from tfq_bench.testing.tiny import TinyModel
from tfq_bench.types import Scheme
from tfq_bench.types.networks import LoadedModel


def silent(done, text):
    """A `Progress` that says nothing."""


@pytest.fixture
def dequantized():
    """A function that gives a layer's weight `(C_out, C_in, ...)` in float32."""

    def weight(layer):
        parts = [
            dequantize(
                part.weight,
                per_channel(part.scale, part.weight),
                per_channel(part.zero_point, part.weight),
            )
            for part in layer.parts
        ]
        return torch.cat(parts, dim=1)

    return weight


@pytest.fixture
def generator():
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def loaded():
    """The tiny model with six sampler steps, on the CPU."""
    model = TinyModel()
    network = model.load(device="cpu", dtype=torch.float32)
    return LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", 6),
        device="cpu",
    )


@pytest.fixture
def round_to_nearest(loaded):
    """Makes a state: `round_to_nearest(wbits, abits, **options)`."""

    def make(wbits=8, abits=8, *, seed=0, images=4, policy="uniform", **options):
        quantizer = RoundToNearest(
            scheme=Scheme(wbits=wbits, abits=abits, policy=policy), **options
        )
        needs = quantizer.calibration_needs(loaded, images=images)
        data = capture(loaded, needs, seed=0, batch=4, progress=silent)
        return quantizer.quantize(
            loaded, data, generator=torch.Generator().manual_seed(seed), progress=silent
        )

    return make


@pytest.fixture
def inputs(generator):
    """`(x, timestep)` of two images at the first of six steps."""
    return torch.randn(2, 3, 8, 8, generator=generator), torch.full((2,), 831)
