"""Q-Diffusion: learned rounding and activation steps, block by block, on states of all steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import CalibrationError
from tfq_bench.quant import (
    FakeQuantNetwork,
    Reconstruction,
    attention_bits,
    calibrate_attention,
    correct_output_bias,
    find_policy,
    reconstruct,
    resolve,
    set_activation_qparams,
    take,
)
from tfq_bench_qdiffusion.calibration import uniform_needs
from tfq_bench_qdiffusion.presets import POLICIES, settle

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.api import (
        CalibrationData,
        CalibrationNeeds,
        LoadedModel,
        OptionValue,
        Progress,
        Scheme,
    )
    from tfq_bench.quant import QuantizedState

__all__ = ["QDiffusion"]


class QDiffusion:
    """The quantizer `qdiffusion`.

    Args:
        options: as the plugin offers them; see `settle`.
    """

    def __init__(self, *, scheme: Scheme, **options: OptionValue) -> None:
        self.scheme = scheme
        self.settings = settle(**options)

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
        """The state; the same inputs and generator give the same bytes.

        Args:
            generator: CPU; draws batches, and the samples that activation ranges rest on.
            checkpoint: folder in which finished blocks are kept; the same call goes on there.

        Raises:
            QuantizationError: impossible bits, an unknown policy, or weights that are not finite.
            CalibrationError: no samples, a block that never ran, or inputs that are not finite.
        """
        if len(data.x) == 0:
            raise CalibrationError(
                "qdiffusion learns from calibration data, found no samples; ask for at least one "
                "calibration image."
            )
        ours = self.settings
        policy = find_policy(self.scheme.policy, POLICIES)
        plan = resolve(policy, loaded.topology, self.scheme)
        fake_quant = FakeQuantNetwork(
            loaded,
            plan,
            split=ours.split,
            weights=ours.weights,
            symmetric_weights=ours.symmetric_weights,
        )
        learning = Reconstruction(
            iterations=ours.iterations,
            batch=ours.batch,
            lr=ours.lr,
            activation_iterations=0,
            activation_lr=ours.activation_lr,
        )
        # Weights first, with float activations; the ranges of inputs are then those of the network
        # with quantized weights, and their steps are learned last.
        share = ours.iterations / max(1, ours.iterations + ours.activation_iterations)
        reconstruct(
            fake_quant,
            data,
            options=learning,
            generator=generator,
            progress=lambda done, text: progress(share * done, text),
            checkpoint=checkpoint and checkpoint / "weights",
        )
        following = ours.activations == "ema"
        order = torch.randperm(len(data.x), generator=generator)
        rows = order if following else order[: ours.start]
        set_activation_qparams(
            fake_quant,
            data,
            fake_quant.layers,
            groups=[rows],
            method=ours.activations,
            symmetric=ours.symmetric_activations,
            batch=ours.start,
            generator=generator,
            progress=lambda _, text: progress(share, text),
        )
        reconstruct(
            fake_quant,
            data,
            options=replace(
                learning, iterations=0, activation_iterations=ours.activation_iterations
            ),
            generator=generator,
            progress=lambda done, text: progress(share + (1.0 - share) * done, text),
            checkpoint=checkpoint and checkpoint / "activations",
        )
        if ours.bias_correction:
            correct_output_bias(fake_quant, data)
        attention = calibrate_attention(
            loaded,
            take(data, rows),
            attention_bits(policy, self.scheme),
            method=ours.activations,
            generator=generator,
        )
        return fake_quant.freeze("qdiffusion", self.scheme, attention=attention)
