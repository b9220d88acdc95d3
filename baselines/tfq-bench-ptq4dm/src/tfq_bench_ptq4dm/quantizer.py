"""PTQ4DM: post-training quantization calibrated on states of chosen timesteps.

The order: draw (timestep, image) pairs, let the host capture these states in one pass of the
full-precision sampler, find a grid for every weight channel, round (or learn to round) the
weights, then find a clip for every layer's input, batch by batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from tfq_bench.api import FULL_PRECISION, CalibrationNeeds, QuantizationError
from tfq_bench.quant import (
    ActivationQParams,
    LayerBits,
    QuantizedLayer,
    Reconstruction,
    ScaleJitter,
    affine_from_range,
    find_policy,
    observe_inputs,
    resolve,
)
from tfq_bench_ptq4dm.calibration_set import calibration_set
from tfq_bench_ptq4dm.prefix import observe_behind_prefix
from tfq_bench_ptq4dm.presets import POLICIES, PRESETS
from tfq_bench_ptq4dm.ranges import ClipRanges
from tfq_bench_ptq4dm.sampling import Sample, Sampling, draw_samples
from tfq_bench_ptq4dm.weights import learned, rounded

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tfq_bench.api import CalibrationData, LoadedModel, Progress, Scheme
    from tfq_bench.quant import QuantizedState

__all__ = ["Ptq4dm"]

BATCH = 256
"""Calibration samples per update of the moving average (released code)."""

BATCH_VALUES = BATCH * 4 * 64 * 64
"""What a batch holds at most, so that large inputs fit memory: 256 latents of 64x64, 64 of 128x128.
Never a matter of the machine, because ranges depend on it."""


class Ptq4dm:
    """The quantizer `ptq4dm`.

    Args:
        preset: name in `PRESETS`; gives `samples` and `values` where they are None.
        sampling: `normal` (the paper) or another pairing of states and timesteps, see `sampling`.
        mu, sigma: of all but `uniform`, as shares of the sampler's steps.
        samples: size of the calibration set.
        values: activation values per layer and batch that are searched for a clip.
        range_batch: samples per network call and update of the moving average; None for 256, fewer
            of inputs with more values than 4x64x64.
        prefix: whose inputs ranges are of: `quantized`, the network with quantized weights and
            earlier inputs (released code), or `float`, the full-precision network.
        iterations: of learned rounding per block; 0 rounds to nearest, as the released script does.
        lr: of learned rounding.
        jitter: half width of the uniform draw by which each output channel's weight scale is
            multiplied, relative; replicates of rounding to nearest, no part of learned rounding.
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        preset: str = "full",
        sampling: Sampling = "normal",
        mu: float = 0.4,
        sigma: float = 0.4,
        samples: int | None = None,
        values: int | None = None,
        range_batch: int | None = None,
        prefix: Literal["quantized", "float"] = "quantized",
        iterations: int = 0,
        lr: float = 1e-3,
        jitter: float = 0.0,
    ) -> None:
        if jitter and iterations:
            raise QuantizationError(
                "ptq4dm: 'jitter' makes replicates of rounding to nearest, which 'iterations' "
                f"replaces; expected one of both above 0, found {jitter:g} and {iterations}."
            )
        self.scheme = scheme
        self.sampling: Sampling = sampling
        self.mu = mu
        self.sigma = sigma
        self.samples = PRESETS[preset].samples if samples is None else samples
        self.values = PRESETS[preset].values if values is None else values
        self.range_batch = range_batch
        self.prefix = prefix
        self.learning = Reconstruction(iterations=iterations, lr=lr)
        self.jitter = jitter

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """The drawn states, each once; none when activations stay float and nothing is learned."""
        if self.scheme.abits == FULL_PRECISION and not self.learning.iterations:
            return CalibrationNeeds()
        last = len(loaded.sampler.timesteps) - 1
        # A finished image is no input of the sampler; `calibration_set` makes it from the last.
        pairs = {(min(one.state, last), one.image) for one in self._draw(loaded, images)}
        return CalibrationNeeds(samples=tuple(sorted(pairs)))

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
            generator: CPU; orders the samples, draws the jitter, the batches of learning and the
                values that are searched.
            checkpoint: folder in which learned blocks are kept; the same call goes on there.

        Raises:
            QuantizationError: impossible bits, an unknown policy, weights that are not finite, or
                learning in a network that is not in float32.
            CalibrationError: no samples, a layer that never ran, or inputs that are not finite.
        """
        plan = resolve(find_policy(self.scheme.policy, POLICIES), loaded.topology, self.scheme)
        inputs = calibration_set(
            loaded,
            data,
            self._draw(loaded, images=max(1, len(set(data.image.tolist())))),
            bare_timesteps=self.sampling == "released",
            generator=generator,
        )
        if self.learning.iterations:
            state = learned(
                loaded,
                plan,
                self.scheme,
                inputs,
                options=self.learning,
                generator=generator,
                progress=lambda done, text: progress(0.7 * done, text),
                checkpoint=checkpoint and checkpoint / "weights",
            )
        else:
            state = rounded(
                loaded,
                plan,
                self.scheme,
                jitter=ScaleJitter(self.jitter, generator=generator),
                progress=lambda done: progress(0.7 * done, "searching weight grids"),
            )
        bits = {
            name: one.abits
            for name, one in plan.items()
            if isinstance(one, LayerBits) and one.abits != FULL_PRECISION
        }
        if not bits:
            return state
        ranges = ClipRanges(bits, values=self.values, generator=generator)

        def tell(done: float, text: str = "searching activation clips") -> None:
            progress(0.7 + 0.3 * done, text)

        batch = self._batch(inputs)
        if self.prefix == "float":
            observe_inputs(
                loaded, inputs, batch=batch, observe=ranges.update, layers=bits, progress=tell
            )
        else:
            observe_behind_prefix(
                loaded, state, inputs, ranges, bits=bits, batch=batch, progress=tell
            )
        layers = {
            name: _with_table(layer, ranges, bits[name]) if name in bits else layer
            for name, layer in state.layers.items()
        }
        return replace(state, layers=layers)

    def _draw(self, loaded: LoadedModel, images: int) -> tuple[Sample, ...]:
        return draw_samples(
            self.samples,
            len(loaded.sampler.timesteps),
            images,
            sampling=self.sampling,
            mu=self.mu,
            sigma=self.sigma,
        )

    def _batch(self, data: CalibrationData) -> int:
        if self.range_batch is not None:
            return self.range_batch
        return max(1, min(BATCH, BATCH_VALUES // max(1, data.x[:1].numel())))


def _with_table(layer: QuantizedLayer, ranges: ClipRanges, bits: int) -> QuantizedLayer:
    scale, zero_point = affine_from_range(*ranges.range(layer.name), bits)
    table = ActivationQParams(bits=bits, scale=scale.cpu(), zero_point=zero_point.cpu())
    (part,) = layer.parts
    return replace(layer, parts=(replace(part, activation=table),))
