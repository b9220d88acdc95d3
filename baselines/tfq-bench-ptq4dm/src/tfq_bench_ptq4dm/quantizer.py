"""PTQ4DM: post-training quantization calibrated on states of chosen timesteps; nothing is learned.

The order: draw (timestep, image) pairs, let the host capture these states in one pass of the
full-precision sampler, find a clip for every weight channel and, batch by batch, for every layer
input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tfq_bench.api import FULL_PRECISION, CalibrationData, CalibrationNeeds, QuantizationError
from tfq_bench.quant import (
    ActivationQParams,
    Exempt,
    LayerBits,
    LayerPart,
    QuantizedLayer,
    QuantizedState,
    affine_from_range,
    exemptions,
    find_layer,
    find_policy,
    guided_prediction,
    observe_inputs,
    per_channel,
    quantize,
    resolve,
)
from tfq_bench_ptq4dm.presets import POLICIES, PRESETS
from tfq_bench_ptq4dm.ranges import ClipRanges, clip_range
from tfq_bench_ptq4dm.sampling import Sample, Sampling, draw_samples

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.api import Layer, LoadedModel, Progress, Scheme

__all__ = ["Ptq4dm"]

BATCH = 32
"""Calibration samples per network call; fixed, because the moving average depends on it."""


class Ptq4dm:
    """The quantizer `ptq4dm`.

    Args:
        preset: name in `PRESETS`; gives `samples` and `values` where they are None.
        sampling: `normal` (the paper), `uniform`, or `mirrored`: states and timesteps paired as
            in the released code, for study.
        mu, sigma: of `normal` and `mirrored`, as shares of the sampler's steps.
        samples: size of the calibration set.
        values: activation values per layer and batch that are searched for a clip.
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
    ) -> None:
        self.scheme = scheme
        self.sampling: Sampling = sampling
        self.mu = mu
        self.sigma = sigma
        self.samples = PRESETS[preset].samples if samples is None else samples
        self.values = PRESETS[preset].values if values is None else values

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """The drawn states, each once; nothing when activations stay float."""
        if self.scheme.abits == FULL_PRECISION:
            return CalibrationNeeds()
        last = len(loaded.sampler.timesteps) - 1
        # A finished image is no input of the sampler; `_calibration_set` makes it from the last.
        pairs = {(min(one.state, last), one.image) for one in self._draw(loaded, images)}
        return CalibrationNeeds(samples=tuple(sorted(pairs)))

    @torch.no_grad()
    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,
        progress: Progress,
        checkpoint: Path | None = None,  # noqa: ARG002
    ) -> QuantizedState:
        """The state; the same inputs and generator give the same bytes.

        Args:
            generator: CPU; orders the samples, and draws the values that are searched.
            checkpoint: not used, because nothing takes long.

        Raises:
            QuantizationError: impossible bits, an unknown policy, or weights that are not finite.
            CalibrationError: no samples, a layer that never ran, or inputs that are not finite.
        """
        plan = resolve(find_policy(self.scheme.policy, POLICIES), loaded.topology, self.scheme)
        abits = {
            name: bits.abits
            for name, bits in plan.items()
            if isinstance(bits, LayerBits) and bits.abits != FULL_PRECISION
        }
        ranges = ClipRanges(abits, values=self.values, generator=generator)
        if abits:
            observe_inputs(
                loaded,
                self._calibration_set(loaded, data, generator=generator),
                batch=BATCH,
                observe=ranges.update,
                layers=abits,
                progress=lambda done, _: progress(0.7 * done, "searching activation clips"),
            )
        layers: dict[str, QuantizedLayer] = {}
        exempt: dict[str, str] = {}
        for number, layer in enumerate(loaded.topology.layers, start=1):
            bits = plan[layer.name]
            if isinstance(bits, Exempt):
                exempt[layer.name] = bits.reason
            else:
                layers[layer.name] = _quantize_layer(loaded, layer, bits, ranges)
            progress(0.7 + 0.3 * number / len(loaded.topology.layers), "searching weight clips")
        return QuantizedState(
            model=loaded.model.digest,
            method="ptq4dm",
            scheme=self.scheme,
            timesteps=tuple(loaded.sampler.timesteps),
            layers=layers,
            exempt=exempt,
            half=exemptions(plan)[1],
        )

    def _draw(self, loaded: LoadedModel, images: int) -> tuple[Sample, ...]:
        return draw_samples(
            self.samples,
            len(loaded.sampler.timesteps),
            images,
            sampling=self.sampling,
            mu=self.mu,
            sigma=self.sigma,
        )

    def _calibration_set(
        self, loaded: LoadedModel, data: CalibrationData, *, generator: torch.Generator
    ) -> CalibrationData:
        """The drawn samples in random order, with the timestep of each one's label."""
        if len(data.x) == 0:
            return data
        rows: dict[tuple[int, int], list[int]] = {}  # two rows each under guidance
        for row, pair in enumerate(zip(data.step.tolist(), data.image.tolist(), strict=True)):
            rows.setdefault(pair, []).append(row)
        images = len(set(data.image.tolist()))
        drawn = self._draw(loaded, images)
        timesteps = loaded.sampler.timesteps
        last = len(timesteps) - 1
        missing = [one for one in drawn if (min(one.state, last), one.image) not in rows]
        if missing:
            raise QuantizationError(
                "the calibration data must hold the states that the quantizer asked for, found no "
                f"state of step {missing[0].state}, image {missing[0].image}; capture anew."
            )
        # A moving average forgets: in drawn order it would know the noisiest steps only.
        order = torch.randperm(len(drawn), generator=generator).tolist()
        drawn = tuple(drawn[position] for position in order)
        held = [(one, row) for one in drawn for row in rows[min(one.state, last), one.image]]
        index = torch.tensor([row for _, row in held], device=data.x.device)
        label = torch.tensor([one.label for one, _ in held], device=data.x.device)
        x = data.x[index]
        condition = {name: value[index] for name, value in data.condition.items()}
        finished = torch.tensor([one.state > last for one, _ in held], device=data.x.device)
        if bool(finished.any()):
            given = torch.tensor(
                [rows[min(one.state, last), one.image][-1] for one, _ in held],
                device=data.x.device,
            )[finished]
            told = {name: value[given] for name, value in data.condition.items()}
            x[finished] = _finish(loaded, x[finished], told, generator)
        return CalibrationData(
            x=x,
            timestep=torch.tensor(timesteps, device=data.x.device, dtype=data.timestep.dtype)[
                label
            ],
            step=label,
            image=data.image[index],
            condition=condition,
        )


def _finish(
    loaded: LoadedModel,
    x: torch.Tensor,
    condition: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> torch.Tensor:
    """The images that the sampler's last step makes of x, in batches of `BATCH`.

    Args:
        condition: what the images are of; guidance adds its own.
    """
    last = len(loaded.sampler.timesteps) - 1
    if loaded.sampler.network_input(x, last) is not x:
        raise QuantizationError(
            "the mirrored pairing steps on from what the network read, which this sampler cannot: "
            "its state holds more. Use a sampler without memory (ddim), or another pairing."
        )
    done = []
    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        part = x[rows]
        t = torch.full((len(part),), loaded.sampler.timesteps[last], device=x.device)
        held = {name: value[rows] for name, value in condition.items()}
        prediction = guided_prediction(loaded.model, loaded.network, part, t, held)
        noise = None
        if loaded.sampler.stochastic:
            noise = torch.randn(part.shape, generator=generator).to(x.device)
        done.append(loaded.sampler.step(part, prediction, last, noise))
    return torch.cat(done)


def _quantize_layer(
    loaded: LoadedModel, layer: Layer, bits: LayerBits, ranges: ClipRanges
) -> QuantizedLayer:
    module = find_layer(loaded.network, layer.name)
    weight = module.weight.detach().float()
    try:
        low, high = clip_range(weight.flatten(1), bits.wbits, symmetric=True)
    except QuantizationError as error:
        raise QuantizationError(f"weight of layer '{layer.name}': {error}") from error
    scale, zero_point = affine_from_range(low, high, bits.wbits, symmetric=True)
    codes = quantize(
        weight, per_channel(scale, weight), per_channel(zero_point, weight), bits.wbits
    )
    table = None
    if bits.abits != FULL_PRECISION:
        a_scale, a_zero = affine_from_range(*ranges.range(layer.name), bits.abits)
        table = ActivationQParams(bits=bits.abits, scale=a_scale.cpu(), zero_point=a_zero.cpu())
    return QuantizedLayer(
        name=layer.name,
        kind=layer.kind,
        wbits=bits.wbits,
        parts=(
            LayerPart(
                start=0,
                stop=weight.shape[1] * getattr(module, "groups", 1),
                weight=codes.cpu(),
                scale=scale.cpu(),
                zero_point=zero_point.cpu(),
                activation=table,
            ),
        ),
        bias=None if module.bias is None else module.bias.detach().float().cpu().clone(),
    )
