"""Q-Diffusion: learned rounding and activation steps, block by block, on states of all steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from tfq_bench.quant import find_policy, resolve
from tfq_bench.quant.reconstruct import Reconstruction, reconstruct
from tfq_bench.quant.working import WorkingNetwork
from tfq_bench_qdiffusion.calibration import uniform_needs
from tfq_bench_qdiffusion.presets import EFFORTS, POLICIES, VARIANTS, Settings, settle
from tfq_bench_qdiffusion.start import start_tables, take

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.api import CalibrationData, CalibrationNeeds, LoadedModel, Progress, Scheme
    from tfq_bench.quant import QuantizedState

__all__ = ["QDiffusion"]

Answer = Literal["variant", "yes", "no"]

START_BATCH = 16
"""Samples per network call while first ranges are observed; a range that follows batches depends
on it."""


class QDiffusion:
    """The quantizer `qdiffusion`.

    Args:
        preset: name in `EFFORTS`. variant: name in `VARIANTS`.
        weights, activations, symmetric_activations, split: in place of the variant's.
        steps, samples, batch, lr, activation_lr: in place of variant's and preset's when not 0.
        iterations, activation_iterations: in place of the preset's when not -1.
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        preset: str = "full",
        variant: str = "cifar",
        weights: Literal["variant", "minmax", "mse"] = "variant",
        activations: Literal["variant", "minmax", "mse", "ema"] = "variant",
        symmetric_activations: Answer = "variant",
        split: Answer = "variant",
        steps: int = 0,
        samples: int = 0,
        iterations: int = -1,
        activation_iterations: int = -1,
        batch: int = 0,
        lr: float = 0.0,
        activation_lr: float = 0.0,
    ) -> None:
        self.scheme = scheme
        chosen = settle(VARIANTS[variant], EFFORTS[preset])
        self.settings: Settings = replace(
            chosen,
            weights=chosen.weights if weights == "variant" else weights,
            activations=chosen.activations if activations == "variant" else activations,
            symmetric_activations=_answer(symmetric_activations, chosen.symmetric_activations),
            split=_answer(split, chosen.split),
            steps=steps or chosen.steps,
            samples=samples or chosen.samples,
            iterations=chosen.iterations if iterations < 0 else iterations,
            activation_iterations=(
                chosen.activation_iterations if activation_iterations < 0 else activation_iterations
            ),
            batch=batch or chosen.batch,
            lr=lr or chosen.lr,
            activation_lr=activation_lr or chosen.activation_lr,
        )

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """The same images at every c-th step, also when activations stay float."""
        return uniform_needs(
            len(loaded.sampler.timesteps),
            steps=self.settings.steps,
            samples=self.settings.samples,
            images=images,
        )

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,
        progress: Progress,
        checkpoint: Path | None = None,
    ) -> QuantizedState:
        """The state; the same inputs and generator give the same bytes on one machine.

        Args:
            generator: CPU; draws the samples that ranges start from, and the batches.
            checkpoint: finished blocks are kept there.

        Raises:
            QuantizationError: impossible bits, an unknown policy, or weights that are not finite.
            CalibrationError: no samples, a layer that never ran, or inputs that are not finite.
        """
        settings = self.settings
        plan = resolve(find_policy(self.scheme.policy, POLICIES), loaded.topology, self.scheme)
        working = WorkingNetwork(loaded, plan, split=settings.split, weights=settings.weights)
        count = min(settings.start, len(data.x))
        start = take(data, torch.randperm(len(data.x), generator=generator)[:count].sort().values)
        tables = start_tables(
            loaded,
            start,
            plan,
            {name: layer.bounds for name, layer in working.layers.items()},
            method=settings.activations,
            symmetric=settings.symmetric_activations,
            batch=START_BATCH,
            generator=generator,
            progress=lambda done, text: progress(0.05 * done, text),
        )
        for name, held in tables.items():
            working.layer(name).set_tables(held)
        reconstruct(
            working,
            data,
            options=Reconstruction(
                iterations=settings.iterations,
                batch=settings.batch,
                lr=settings.lr,
                activation_iterations=settings.activation_iterations if tables else 0,
                activation_lr=settings.activation_lr,
            ),
            generator=generator,
            progress=lambda done, text: progress(0.05 + 0.95 * done, text),
            checkpoint=checkpoint,
        )
        return working.freeze("qdiffusion", self.scheme)


def _answer(answer: Answer, default: bool) -> bool:
    return default if answer == "variant" else answer == "yes"
