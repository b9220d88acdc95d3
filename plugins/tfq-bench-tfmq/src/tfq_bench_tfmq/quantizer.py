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
from tfq_bench.quant import LayerBits, attention_bits, calibrate_attention, find_policy
from tfq_bench.quant.bias import correct_output_bias
from tfq_bench.quant.cached import unused_layers
from tfq_bench.quant.input_tables import by_step, set_input_tables, take
from tfq_bench.quant.learning import Reconstruction
from tfq_bench.quant.policy import exemptions
from tfq_bench.quant.reconstruct import reconstruct
from tfq_bench.quant.working import WorkingNetwork
from tfq_bench_tfmq.block import TemporalBlock, find_temporal_block
from tfq_bench_tfmq.cache import Granularity, quantize_feature
from tfq_bench_tfmq.conditioned import behind_condition, check_inputs, learn_projections
from tfq_bench_tfmq.fsc import calibrate_inputs, with_tables
from tfq_bench_tfmq.maintenance import Maintained, features_fixed, merge
from tfq_bench_tfmq.presets import EFFORTS, METHODS, POLICIES, Conditioned, layer_plan
from tfq_bench_tfmq.selection import ErrorMeasure, Scope, disturbance, select_cache
from tfq_bench_tfmq.tiar import learn_rounding

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tfq_bench.api import LoadedModel, Progress, Scheme
    from tfq_bench.quant import QuantizedState
    from tfq_bench.quant.observe import RangeMethod
    from tfq_bench.quant.rtn import WeightMethod

__all__ = ["Tfmq"]

RANGE_BATCH = 16
"""Samples per network call when inputs are observed (paper); a moving average depends on it."""

_log = logging.getLogger("tfq_bench.tfmq")


class Tfmq:
    """The quantizer `tfmq`. Each option is explained where the plugin offers it.

    Args:
        method: name in `METHODS`; gives `maintenance` and `activations` where they are "method".
        preset: name in `EFFORTS`; gives the numbers that are 0 (iterations: -1).
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        method: str = "cvpr24",
        preset: str = "full",
        maintenance: str = "method",
        selection: Scope = "per-step-block",
        error: ErrorMeasure = "relative",
        cache_bits: int = 8,
        cache_granularity: Granularity = "channel",
        tiar: bool = True,
        fsc: bool = True,
        conditioned: Conditioned = "time",
        activations: str = "method",
        ranges: RangeMethod = "ema",
        weights: WeightMethod = "mse",
        symmetric_weights: bool = False,
        split: bool = True,
        steps: int = 20,
        samples: int = 0,
        iterations: int = -1,
        tiar_iterations: int = -1,
        batch: int = 0,
        lr: float = 0.0,
        activation_iterations: int = -1,
        activation_lr: float = 0.0,
        bias_correction: bool = False,
    ) -> None:
        effort = EFFORTS[preset]
        published = METHODS[method]
        self.scheme = scheme
        self.maintenance = published.maintenance if maintenance == "method" else maintenance
        chosen = published.activations if activations == "method" else activations
        self.per_step = chosen == "per-step-all"
        self.selection: Scope = selection
        self.error: ErrorMeasure = error
        self.cache_bits = cache_bits
        self.cache_granularity: Granularity = cache_granularity
        self.tiar, self.fsc = tiar, fsc
        self.conditioned: Conditioned = conditioned
        self.ranges: RangeMethod = ranges
        self.weights: WeightMethod = weights
        self.symmetric_weights = symmetric_weights
        self.split = split
        self.steps = steps
        self.samples = samples or effort.samples
        self.iterations = effort.iterations if iterations < 0 else iterations
        self.tiar_iterations = effort.tiar_iterations if tiar_iterations < 0 else tiar_iterations
        self.batch = batch or effort.batch
        self.lr = lr or effort.lr
        self.tiar_lr = lr or effort.tiar_lr
        learned = effort.activation_iterations if published.learned_steps else 0
        self.activation_iterations = learned if activation_iterations < 0 else activation_iterations
        self.activation_lr = activation_lr or effort.activation_lr
        self.bias_correction = bias_correction

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """`samples` images at every c-th step, or at each step for ranges per step.

        Nothing when only layers that depend on time alone are learned and activations stay float.
        """
        behind = self._behind(loaded)
        apart = bool(behind) and self.tiar and self.tiar_iterations > 0
        if self.iterations == 0 and not apart and self.scheme.abits == FULL_PRECISION:
            return CalibrationNeeds()
        total = len(loaded.sampler.timesteps)
        per_step = self.per_step or (bool(behind) and self.fsc)
        observed = per_step and self.scheme.abits != FULL_PRECISION
        steps = range(total) if observed else self._learning_steps(total)
        chosen = range(min(self.samples, images))
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
        plan = layer_plan(loaded, self.scheme, self.conditioned)
        block = find_temporal_block(loaded)
        behind = self._behind(loaded)
        check_inputs(loaded, behind)
        working = WorkingNetwork(
            loaded,
            plan,
            split=self.split,
            weights=self.weights,
            symmetric_weights=self.symmetric_weights,
        )
        apart = self.tiar or self.maintenance == "cache"
        with ExitStack() as stack:
            if self.tiar and self.maintenance != "cache":
                report = learn_rounding(
                    block,
                    working,
                    iterations=self.tiar_iterations,
                    lr=self.tiar_lr,
                    progress=_part(progress, 0.0, 0.1),
                )
                _log.info("TIAR: loss %.4g -> %.4g", report.before, report.after)
            kept = self._maintain(block, working) if apart else None
            if kept is not None:
                stack.enter_context(features_fixed(working, kept.features))
            if self.tiar:
                report = learn_projections(
                    working,
                    data,
                    behind,
                    iterations=self.tiar_iterations,
                    lr=self.lr,
                    generator=generator,
                    progress=_part(progress, 0.1, 0.2),
                )
                _log.info("behind a condition: loss %.4g -> %.4g", report.before, report.after)
            apart_layers = (*block.layers, *behind) if self.tiar else block.layers
            learned_on = take(data, self._learning_rows(loaded, data))
            weights = 0.2 + 0.7 * self._weights_share()
            self._reconstruct(
                working,
                learned_on,
                self._learning(activations=False),
                skip=apart_layers if apart else (),
                generator=generator,
                progress=_part(progress, 0.2, weights),
                checkpoint=checkpoint and checkpoint / "weights",
            )
            if kept is None:
                kept = self._maintain(block, working)
                stack.enter_context(features_fixed(working, kept.features))
            self._set_tables(
                working,
                data,
                skip=block.layers,
                generator=generator,
                progress=_part(progress, weights, weights + 0.1),
            )
            self._reconstruct(
                working,
                data,
                self._learning(activations=True),
                skip=block.layers,
                generator=generator,
                progress=_part(progress, weights + 0.1, 1.0),
                checkpoint=checkpoint and checkpoint / "activations",
            )
            if self.bias_correction:
                correct_output_bias(working, learned_on)
        attention = calibrate_attention(
            loaded,
            data,
            attention_bits(find_policy(self.scheme.policy, POLICIES), self.scheme),
            method=self.ranges,
            generator=generator,
        )
        return working.freeze(
            "tfmq",
            self.scheme,
            attention=attention,
            dropped=unused_layers(loaded.topology, kept.cache),
            cache=kept.cache,
        )

    def _maintain(self, block: TemporalBlock, working: WorkingNetwork) -> Maintained:
        """Sets the block's activation tables, and makes what takes its place."""
        held = [name for name in block.layers if name in working.layers]
        weights = {name: working.layer(name).pieces[0].kernel("hard") for name in held}
        bits = {name: working.layer(name).bits.abits for name in held}
        tables = calibrate_inputs(block, weights, bits, per_step=self.fsc)
        for name, table in tables.items():
            working.layer(name).set_tables([table])
        _, half = exemptions(working.plan)
        features = block.in_half(half).features(weights, with_tables(tables))
        if self.maintenance == "block":
            return Maintained(features=features, cache={})
        exact = block.features()
        caches = {
            name: quantize_feature(
                name, feature, bits=self.cache_bits, granularity=self.cache_granularity
            )
            for name, feature in exact.items()
        }
        stored = {name: cache.dequantized() for name, cache in caches.items()}
        chosen = torch.ones((len(block.table), len(exact)), dtype=torch.bool)
        if self.maintenance == "select":
            chosen = select_cache(
                disturbance(exact, features, self.error),
                disturbance(exact, stored, self.error),
                self.selection,
                ties=block.ties(),
            )
            _log.info("selection: cache for %.1f%% of features", 100 * chosen.float().mean())
        return merge(features, caches, stored, chosen)

    def _learning(self, *, activations: bool) -> Reconstruction:
        """What the reconstruction of weights, or of activation steps, does."""
        return Reconstruction(
            iterations=0 if activations else self.iterations,
            batch=self.batch,
            lr=self.lr,
            activation_iterations=self.activation_iterations if activations else 0,
            activation_lr=self.activation_lr,
        )

    def _learning_rows(self, loaded: LoadedModel, data: CalibrationData) -> Tensor:
        """The samples that weights are learned on, int64 `[M]`.

        Activation steps are learned on all there are: every entry of a table per step needs some.
        """
        steps = torch.tensor(self._learning_steps(len(loaded.sampler.timesteps)))
        return torch.nonzero(torch.isin(data.step, steps.to(data.step.device))).flatten()

    def _weights_share(self) -> float:
        """Of the time that both reconstructions take; only progress rests on it."""
        return self.iterations / max(1, self.iterations + self.activation_iterations)

    def _reconstruct(
        self,
        working: WorkingNetwork,
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
            working,
            data,
            skip=skip,
            options=options,
            generator=generator,
            progress=progress,
            checkpoint=checkpoint,
        )

    def _set_tables(
        self,
        working: WorkingNetwork,
        data: CalibrationData,
        *,
        skip: tuple[str, ...],
        generator: torch.Generator,
        progress: Progress,
    ) -> None:
        """Activation tables of all layers but `skip`."""
        apart = self._inputs_per_step(working)
        # In random order, because a moving average forgets.
        together = [torch.randperm(len(data.x), generator=generator)]
        for groups, chosen in (
            (together, [name for name in working.layers if name not in apart]),
            (by_step(data, len(working.loaded.sampler.timesteps)), apart),
        ):
            set_input_tables(
                working,
                data,
                [name for name in chosen if name not in skip],
                groups=groups,
                method=self.ranges,
                symmetric=False,
                batch=RANGE_BATCH,
                generator=generator,
                progress=progress,
            )

    def _inputs_per_step(self, working: WorkingNetwork) -> tuple[str, ...]:
        """Layers outside of the block whose inputs get a range for every step."""
        if self.per_step:
            return tuple(working.layers)
        return self._behind(working.loaded) if self.fsc else ()

    def _behind(self, loaded: LoadedModel) -> tuple[str, ...]:
        """The quantized projections that read a condition besides the timestep."""
        plan = layer_plan(loaded, self.scheme, self.conditioned)
        names = behind_condition(loaded.topology)
        return tuple(name for name in names if isinstance(plan[name], LayerBits))

    def _learning_steps(self, total: int) -> range:
        return range(0, total, max(1, total // self.steps))


def _part(progress: Progress, start: float, stop: float) -> Progress:
    """The stretch [start, stop] of `progress`."""
    return lambda done, text: progress(start + (stop - start) * done, text)
