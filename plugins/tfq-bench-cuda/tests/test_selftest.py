"""The test before use: right arithmetic passes, each way to be wrong is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels import selftest
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, QuantizeSpec, Tile

TILE = Tile(m=128, n=64, k=32, stages=3, threads=128)
CPU = torch.device("cpu")
SQUARE = Geometry(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))

LINEAR = LinearSpec(n=24, k=64, ending=Ending(partial=True), tile=TILE)
CONV = ConvSpec(n=24, c=32, geometry=SQUARE, gather=False, ending=Ending(), tile=TILE)
ROWS = QuantizeSpec(planes=False, total=40, start=8, channels=20, dtype="float32", bits=8)
PLANES = QuantizeSpec(planes=True, total=40, start=0, channels=40, dtype="bfloat16", bits=4)


def ended(**what) -> LinearSpec:
    """A product that ends so."""
    return LinearSpec(n=96, k=64, ending=Ending(**what), tile=TILE)


class Saturating(ReferenceKernels):
    """Sums that stop at 16 bits, as on processors without the right instruction."""

    def linear(self, spec, *arguments):
        """Right below 32,768."""
        return super().linear(spec, *arguments).clamp(-32768, 32767)


class WithoutBorders(ReferenceKernels):
    """Takes the zero point off as if every tap were inside of the image."""

    def conv2d(self, spec, code, factors, *rest):
        """Right in the middle of an image."""
        middle = factors.positions.clone()
        middle[:, 2] = 4
        return super().conv2d(spec, code, replace(factors, positions=middle), *rest)


class AwayFromZero(ReferenceKernels):
    """Rounds halves up instead of to the even code."""

    def quantize(self, spec, x, step, inverse, zero_point):
        """Right for everything but ties."""
        moved = x.float() * inverse[step]
        moved = torch.where(moved.frac().abs() == 0.5, moved + 0.25, moved)
        return super().quantize(spec, moved / inverse[step], step, inverse, zero_point)


class OneStep(ReferenceKernels):
    """Reads the tables at step 0, wherever the sampler is."""

    def linear(self, spec, code, factors, *rest):
        """Right at the first step."""
        first = replace(factors, step=torch.zeros_like(factors.step))
        return super().linear(spec, code, first, *rest)


class WrongImage(ReferenceKernels):
    """Shifts every row as the first image's."""

    def linear(self, spec, code, factors, additions):
        """Right for one image."""
        shift = additions.shift[:1].expand_as(additions.shift).contiguous()
        return super().linear(spec, code, factors, replace(additions, shift=shift))


class WithoutResidual(ReferenceKernels):
    """Forgets what is added last."""

    def linear(self, spec, code, factors, additions):
        """Right where the residual is zero."""
        nothing = torch.zeros_like(additions.residual)
        return super().linear(spec, code, factors, replace(additions, residual=nothing))


class Approximate(ReferenceKernels):
    """Takes `tanh` for `erf`, which few results show."""

    def linear(self, spec, *arguments):
        """Off by 5e-4 at most."""
        ending = replace(spec.ending, activation="gelu-tanh")
        return super().linear(replace(spec, ending=ending), *arguments)


class LastBits(ReferenceKernels):
    """As right as another library: sums that are 2^-22 off."""

    def linear(self, spec, code, factors, *rest):
        """Rounds otherwise now and then."""
        near = replace(factors, weight_scale=factors.weight_scale * (1 + 2**-22))
        return super().linear(spec, code, near, *rest)


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_each_ending_has_a_trial(ending, kind):
    """The reference agrees with itself, whatever becomes of a sum."""
    if kind == "linear":
        spec = LinearSpec(n=32, k=64, ending=ending, tile=TILE)
    else:
        spec = replace(CONV, n=32, ending=replace(ending, activation=""))
    selftest.check(ReferenceKernels(), spec, CPU)


def test_last_bits_of_an_activation_may_differ():
    """Codes move by one where a value is at the border of two; nowhere else."""
    for out in ("int8", "bfloat16", "float32"):
        spec = LinearSpec(n=96, k=64, ending=Ending(activation="gelu", out=out), tile=TILE)
        selftest.check(LastBits(), spec, CPU)
    with pytest.raises(LoweringError):
        selftest.check(LastBits(), replace(LINEAR, n=96, ending=Ending(residual="float32")), CPU)


@pytest.mark.parametrize("spec", [LINEAR, CONV, ROWS, PLANES])
def test_right_arithmetic_passes(spec):
    """The reference agrees with itself: the trial's operands are ones that a kernel takes."""
    selftest.check(ReferenceKernels(), spec, CPU)


@pytest.mark.parametrize(
    ("kernels", "spec", "named"),
    [
        (Saturating(), LINEAR, "linear 128x64x32, 64 terms a sum"),
        (OneStep(), LINEAR, "linear 128x64x32"),
        (WithoutBorders(), CONV, "conv2d 128x64x32, 288 terms a sum"),
        (AwayFromZero(), ROWS, "quantization of 20 channels"),
        (WrongImage(), ended(shift=True, out="bfloat16"), "linear 128x64x32"),
        (WithoutResidual(), ended(residual="bfloat16", out="int8"), "linear 128x64x32"),
        (Approximate(), ended(activation="gelu", out="int8"), "linear 128x64x32"),
        (Approximate(), ended(activation="gelu"), "linear 128x64x32"),
    ],
    ids=[
        "saturates",
        "one step",
        "no borders",
        "rounds away",
        "one image",
        "no residual",
        "codes of tanh",
        "tanh",
    ],
)
def test_wrong_arithmetic_is_refused(kernels, spec, named):
    """The message names the kernel, the first wrong value, and what to do."""
    with pytest.raises(LoweringError) as caught:
        selftest.check(kernels, spec, CPU)
    message = str(caught.value)
    assert named in message
    assert "expected" in message
    assert "Use backend 'simulate'" in message
