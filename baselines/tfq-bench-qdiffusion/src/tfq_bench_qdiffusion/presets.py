"""Variants (what the released scripts do per model family), efforts and layer policies.

A variant and an effort together are a preset of the paper at a stated cost: `cifar` and `full` is
the CIFAR-10 script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfq_bench.api import OptionValue
from tfq_bench.quant import POLICIES as SHARED
from tfq_bench.quant import AttentionBits, Policy

__all__ = ["EFFORTS", "PAPER", "POLICIES", "VARIANTS", "Settings", "settle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `QDiffusion` does.

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
        iterations: of rounding, per block; 0 for nearest rounding.
        activation_iterations: of activation steps, per block; 0 leaves them as they start.
        lr: of the rounding variables.
        activation_lr: of the logarithms of activation scales.
        symmetric_weights: whether weight codes have their zero point in the middle.
        bias_correction: see `correct_output_bias`.
    """

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
    symmetric_weights: bool = False
    bias_correction: bool = False


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "cifar": {
        "weights": "minmax",
        "activations": "minmax",
        "symmetric_activations": True,
        "split": True,
        "steps": 20,
        "samples": 256,
        "start": 64,
        "batch": 32,
    },
    "ldm": {
        "weights": "mse",
        "activations": "ema",
        "symmetric_activations": True,
        "split": False,
        "steps": 20,
        "samples": 256,
        "start": 64,
        "batch": 32,
    },
    "sd": {
        "weights": "mse",
        "activations": "ema",
        "symmetric_activations": False,
        "split": True,
        "steps": 25,
        "samples": 128,
        "start": 16,
        "batch": 8,
    },
}
"""Settings that do not change with the effort. `ldm` is the script for LSUN-Bedrooms; LSUN-Churches
has asymmetric MSE activations. `sd` starts from MSE ranges that then follow batches; here the
following range is min-max."""

EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "iterations": 40,
        "activation_iterations": 0,
        "samples": 4,
        "batch": 8,
        "lr": 3e-2,
        "activation_lr": 4e-4,
    },
    "fast": {
        "iterations": 1000,
        "activation_iterations": 250,
        "samples": 64,
        "batch": 32,
        "lr": 1e-2,
        "activation_lr": 2e-3,
    },
    "full": {
        "iterations": 20_000,
        "activation_iterations": 5_000,
        "samples": 256,
        "batch": 32,
        "lr": 1e-3,
        "activation_lr": 4e-4,
    },
}
"""How much is done, for any variant; `samples` and `batch` are the largest. Fewer iterations need
longer steps, or nothing moves. `quick` leaves activation steps as they start: in the time it has,
they would not move."""


def settle(*, variant: str = "cifar", preset: str = "full", **given: OptionValue) -> Settings:
    """The settings of a variant at an effort, but for those that are given and not None.

    Args:
        variant: name in `VARIANTS`. preset: name in `EFFORTS`.
        given: by name of a field of `Settings`.
    """
    family, effort = VARIANTS[variant], EFFORTS[preset]
    smaller = {size: min(family[size], effort[size]) for size in ("samples", "batch")}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Settings(**{**family, **effort, **smaller, **chosen})


PAPER = Policy(name="paper", attention=AttentionBits(operands=8, softmax=8))
"""Nothing is exempt: input, output, time and shortcut layers all have the asked bits, and the
operands of the products inside attention have 8. The released code's 16-bit softmax for Stable
Diffusion is not offered."""

POLICIES = (*SHARED, PAPER)
