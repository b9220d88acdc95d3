"""TFMQ-DM: temporal features are kept apart from the reconstruction of what surrounds them.

The order: the temporal block's rounding (TIAR) and activation parameters (FSC), a cache and the
selection between both, the projections behind a condition where there are some, then block
reconstruction of all other layers around features that are final, then activation ranges of these,
whose steps may be learned.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import FULL_PRECISION, CalibrationData, CalibrationNeeds
from tfq_bench.quant import (
    FakeQuantNetwork,
    LayerBits,
    Reconstruction,
    attention_bits,
    by_step,
    calibrate_attention,
    correct_output_bias,
    find_policy,
    reconstruct,
    set_activation_qparams,
    take,
    unused_layers,
)
from tfq_bench_tfmq.conditional_projections import behind_condition, check_inputs, learn_projections
from tfq_bench_tfmq.find_block import find_temporal_block
from tfq_bench_tfmq.maintenance import features_fixed, maintain
from tfq_bench_tfmq.presets import POLICIES, layer_plan, settle
from tfq_bench_tfmq.tiar import learn_rounding

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tfq_bench.api import LoadedModel, OptionValue, Progress, Scheme
    from tfq_bench.quant import QuantizedState

__all__ = ["Tfmq"]

RANGE_BATCH = 16
"""Samples per network call when inputs are observed (paper); a moving average depends on it."""

_log = logging.getLogger("tfq_bench.tfmq")


class Tfmq:
    """The quantizer `tfmq`.

    Args:
        options: as the plugin offers them; see `settle`.
    """

    def __init__(self, *, scheme: Scheme, **options: OptionValue) -> None:
        self.scheme = scheme
        self.settings = settle(**options)

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """`samples` images at every c-th step, or at each step for ranges per step.

        Nothing when only layers that depend on time alone are learned and activations stay float.
        """
        ours, behind = self.settings, self._behind(loaded)
        apart = bool(behind) and ours.tiar and ours.tiar_iterations > 0
        if ours.iterations == 0 and not apart and self.scheme.abits == FULL_PRECISION:
            return CalibrationNeeds()
        total = len(loaded.sampler.timesteps)
        per_step = ours.activations == "per-step-all" or (bool(behind) and ours.fsc)
        observed = per_step and self.scheme.abits != FULL_PRECISION
        steps = range(total) if observed else self._learning_steps(total)
        chosen = range(min(ours.samples, images))
        return CalibrationNeeds(samples=tuple((step, image) for step in steps for image in chosen))

    @torch.no_grad()
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
            generator: CPU; draws rows behind a condition, batches of the reconstruction, and the
                order of samples.
            checkpoint: folder where finished blocks of the reconstruction are kept.

        Raises:
            QuantizationError: no temporal block that is understood, impossible bits, an unknown
                policy, or weights that are not finite.
            CalibrationError: no samples where they are needed, or inputs that are not finite.
        """
        ours = self.settings
        plan = layer_plan(loaded, self.scheme, ours.conditioned)
        block = find_temporal_block(loaded)
        behind = self._behind(loaded)
        check_inputs(loaded, behind)
        fake_quant = FakeQuantNetwork(
            loaded,
            plan,
            split=ours.split,
            weights=ours.weights,
            symmetric_weights=ours.symmetric_weights,
        )
        apart = ours.tiar or ours.maintenance == "cache"
        with ExitStack() as stack:
            if ours.tiar and ours.maintenance != "cache":
                report = learn_rounding(
                    block,
                    fake_quant,
                    iterations=ours.tiar_iterations,
                    lr=ours.tiar_lr,
                    progress=_part(progress, 0.0, 0.1),
                )
                _log.info("TIAR: loss %.4g -> %.4g", report.before, report.after)
            kept = maintain(block, fake_quant, ours) if apart else None
            if kept is not None:
                stack.enter_context(features_fixed(fake_quant, kept.features))
            if ours.tiar:
                report = learn_projections(
                    fake_quant,
                    data,
                    behind,
                    iterations=ours.tiar_iterations,
                    lr=ours.lr,
                    generator=generator,
                    progress=_part(progress, 0.1, 0.2),
                )
                _log.info("behind a condition: loss %.4g -> %.4g", report.before, report.after)
            apart_layers = (*block.layers, *behind) if ours.tiar else block.layers
            learned_on = take(data, self._learning_rows(loaded, data))
            weights = 0.2 + 0.7 * self._weights_share()
            self._reconstruct(
                fake_quant,
                learned_on,
                self._learning(activations=False),
                skip=apart_layers if apart else (),
                generator=generator,
                progress=_part(progress, 0.2, weights),
                checkpoint=checkpoint and checkpoint / "weights",
            )
            if kept is None:
                kept = maintain(block, fake_quant, ours)
                stack.enter_context(features_fixed(fake_quant, kept.features))
            self._set_tables(
                fake_quant,
                data,
                skip=block.layers,
                generator=generator,
                progress=_part(progress, weights, weights + 0.1),
            )
            self._reconstruct(
                fake_quant,
                data,
                self._learning(activations=True),
                skip=block.layers,
                generator=generator,
                progress=_part(progress, weights + 0.1, 1.0),
                checkpoint=checkpoint and checkpoint / "activations",
            )
            if ours.bias_correction:
                correct_output_bias(fake_quant, learned_on)
        attention = calibrate_attention(
            loaded,
            data,
            attention_bits(find_policy(self.scheme.policy, POLICIES), self.scheme),
            method=ours.ranges,
            generator=generator,
        )
        return fake_quant.freeze(
            "tfmq",
            self.scheme,
            attention=attention,
            dropped=unused_layers(loaded.topology, kept.cache),
            cache=kept.cache,
        )

    def _learning(self, *, activations: bool) -> Reconstruction:
        """What the reconstruction of weights, or of activation steps, does."""
        ours = self.settings
        return Reconstruction(
            iterations=0 if activations else ours.iterations,
            batch=ours.batch,
            lr=ours.lr,
            activation_iterations=ours.activation_iterations if activations else 0,
            activation_lr=ours.activation_lr,
        )

    def _learning_rows(self, loaded: LoadedModel, data: CalibrationData) -> Tensor:
        """The samples that weights are learned on, int64 `[M]`.

        Activation steps are learned on all there are: every entry of a table per step needs some.
        """
        steps = torch.tensor(self._learning_steps(len(loaded.sampler.timesteps)))
        return torch.nonzero(torch.isin(data.step, steps.to(data.step.device))).flatten()

    def _weights_share(self) -> float:
        """Of the time that both reconstructions take; only progress rests on it."""
        ours = self.settings
        return ours.iterations / max(1, ours.iterations + ours.activation_iterations)

    def _reconstruct(
        self,
        fake_quant: FakeQuantNetwork,
        data: CalibrationData,
        options: Reconstruction,
        *,
        skip: tuple[str, ...],
        generator: torch.Generator,
        progress: Progress,
        checkpoint: Path | None,
    ) -> None:
        if options.iterations == options.activation_iterations == 0:
            return
        reconstruct(
            fake_quant,
            data,
            skip=skip,
            options=options,
            generator=generator,
            progress=progress,
            checkpoint=checkpoint,
        )

    def _set_tables(
        self,
        fake_quant: FakeQuantNetwork,
        data: CalibrationData,
        *,
        skip: tuple[str, ...],
        generator: torch.Generator,
        progress: Progress,
    ) -> None:
        """Activation tables of all layers but `skip`."""
        apart = self._inputs_per_step(fake_quant)
        # In random order, because a moving average forgets.
        together = [torch.randperm(len(data.x), generator=generator)]
        for groups, chosen in (
            (together, [name for name in fake_quant.layers if name not in apart]),
            (by_step(data, len(fake_quant.loaded.sampler.timesteps)), apart),
        ):
            set_activation_qparams(
                fake_quant,
                data,
                [name for name in chosen if name not in skip],
                groups=groups,
                method=self.settings.ranges,
                symmetric=self.settings.symmetric_activations,
                batch=RANGE_BATCH,
                generator=generator,
                progress=progress,
            )

    def _inputs_per_step(self, fake_quant: FakeQuantNetwork) -> tuple[str, ...]:
        """Layers outside of the block whose inputs get a range for every step."""
        if self.settings.activations == "per-step-all":
            return tuple(fake_quant.layers)
        return self._behind(fake_quant.loaded) if self.settings.fsc else ()

    def _behind(self, loaded: LoadedModel) -> tuple[str, ...]:
        """The quantized projections that read a condition besides the timestep."""
        plan = layer_plan(loaded, self.scheme, self.settings.conditioned)
        names = behind_condition(loaded.topology)
        return tuple(name for name in names if isinstance(plan[name], LayerBits))

    def _learning_steps(self, total: int) -> range:
        return range(0, total, max(1, total // self.settings.steps))


def _part(progress: Progress, start: float, stop: float) -> Progress:
    """The stretch [start, stop] of `progress`."""
    return lambda done, text: progress(start + (stop - start) * done, text)
