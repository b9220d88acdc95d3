"""Variants (what the released scripts do per model family), efforts and layer policies.

A variant and an effort together are a preset of the paper at a stated cost: `cifar` and `full` is
the CIFAR-10 script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfq_bench.quant import POLICIES as SHARED
from tfq_bench.quant import AttentionBits, Policy

__all__ = ["EFFORTS", "PAPER", "POLICIES", "VARIANTS", "Effort", "Settings", "Variant", "settle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Choices that do not change with the effort.

    Args:
        weights: how a channel's range is found.
        activations: how an input's first range is found: `minmax` and `mse` over the sample it
            starts from, `ema` follows batches.
        symmetric_activations: whether activation codes have their zero point in the middle.
        split: whether a shortcut convolution over a concatenation has parameters per half.
        steps: sampler steps that calibration data are taken from.
        samples: images at each of them.
        start: samples that first activation ranges rest on.
        batch: samples per iteration.
    """

    weights: Literal["minmax", "mse"]
    activations: Literal["minmax", "mse", "ema"]
    symmetric_activations: bool
    split: bool
    steps: int
    samples: int
    start: int
    batch: int


VARIANTS = {
    "cifar": Variant(
        weights="minmax",
        activations="minmax",
        symmetric_activations=True,
        split=True,
        steps=20,
        samples=256,
        start=64,
        batch=32,
    ),
    "ldm": Variant(
        weights="mse",
        activations="ema",
        symmetric_activations=True,
        split=False,
        steps=20,
        samples=256,
        start=64,
        batch=32,
    ),
    "sd": Variant(
        weights="mse",
        activations="ema",
        symmetric_activations=False,
        split=True,
        steps=25,
        samples=128,
        start=16,
        batch=8,
    ),
}
"""`ldm` is the script for LSUN-Bedrooms; LSUN-Churches has asymmetric MSE activations. `sd` starts
from MSE ranges that then follow batches; here the following range is min-max."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is done, for any variant.

    Args:
        iterations: of rounding, per block.
        activation_iterations: of activation steps, per block. `quick` leaves them as they start:
            in the time it has, they would not move.
        samples: largest number of images per calibration step.
        batch: largest batch.
        lr: of the rounding variables. Fewer iterations need longer steps, or nothing moves.
        activation_lr: of the logarithms of activation scales.
    """

    iterations: int
    activation_iterations: int
    samples: int
    batch: int
    lr: float
    activation_lr: float


EFFORTS = {
    "quick": Effort(
        iterations=40,
        activation_iterations=0,
        samples=4,
        batch=8,
        lr=3e-2,
        activation_lr=4e-4,
    ),
    "fast": Effort(
        iterations=1000,
        activation_iterations=250,
        samples=64,
        batch=32,
        lr=1e-2,
        activation_lr=2e-3,
    ),
    "full": Effort(
        iterations=20_000,
        activation_iterations=5_000,
        samples=256,
        batch=32,
        lr=1e-3,
        activation_lr=4e-4,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `QDiffusion` does, after variant, effort and options; see these."""

    weights: Literal["minmax", "mse"]
    activations: Literal["minmax", "mse", "ema"]
    symmetric_activations: bool
    split: bool
    steps: int
    samples: int
    start: int
    batch: int
    iterations: int
    activation_iterations: int
    lr: float
    activation_lr: float


def settle(variant: Variant, effort: Effort) -> Settings:
    """The smaller of both where a variant and an effort bound the same size."""
    return Settings(
        weights=variant.weights,
        activations=variant.activations,
        symmetric_activations=variant.symmetric_activations,
        split=variant.split,
        steps=variant.steps,
        samples=min(variant.samples, effort.samples),
        start=variant.start,
        batch=min(variant.batch, effort.batch),
        iterations=effort.iterations,
        activation_iterations=effort.activation_iterations,
        lr=effort.lr,
        activation_lr=effort.activation_lr,
    )


PAPER = Policy(name="paper", attention=AttentionBits(operands=8, softmax=8))
"""Nothing is exempt: input, output, time and shortcut layers all have the asked bits, and the
operands of the products inside attention have 8. The released code's 16-bit softmax for Stable
Diffusion is not offered."""

POLICIES = (*SHARED, PAPER)
