"""Round to nearest: the reference quantizer. Nothing is learned.

Weights: one range per output channel, by default the min-max range with symmetric codes.
Activations: one static range per layer input, from calibration data over the whole trajectory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.calibrate.observers import (
    InputRanges,
    RangeMethod,
    observation_order,
    observe_inputs,
)
from tfq_bench.quant.calibrate.ranges import minmax, mse_range
from tfq_bench.quant.calibrate.temporal import float16_caches
from tfq_bench.quant.jitter import ScaleJitter
from tfq_bench.quant.layers import find_layer, input_parts, part_name
from tfq_bench.quant.policy import Exempt, LayerBits, exemptions, find_policy, resolve
from tfq_bench.quant.state.affine import affine_from_range, per_channel, quantize
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.quant.state.storage import LayerSpill
from tfq_bench.quant.state.temporal_cache import unused_layers
from tfq_bench.types import FULL_PRECISION, CalibrationNeeds, Scheme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tfq_bench.types import CalibrationData, Layer
    from tfq_bench.types.networks import LoadedModel
    from tfq_bench.types.tasks import Progress

__all__ = ["RoundToNearest", "WeightMethod", "activation_qparams", "round_weight"]

WeightMethod = Literal["minmax", "mse"]
TemporalMode = Literal["layers", "cache16"]

BATCH = 16
"""Calibration samples of 3x32x32 values per network call, fewer of larger ones; never a matter of
the machine, because the EMA range depends on it."""
ROUNDED_VALUES = 2**22
"""Weights that are rounded at once; channels do not depend on each other."""
BATCH_VALUES = BATCH * 3 * 32 * 32


class RoundToNearest:
    """The quantizer `rtn`.

    Args:
        weights: how a channel's range is found: `minmax`, or `mse` (see `mse_range`).
        activations: how an input's range is found: `minmax`, `mse`, `percentile` (99.9) or `ema`.
        symmetric_weights: whether weight codes have their zero point in the middle; kernels
            that take signed weights need no correction then.
        calibration_steps: how many sampler steps, evenly spread with both ends, are looked at.
        split: whether both halves of a concatenation in front of a shortcut convolution get
            parameters of their own.
        temporal: `layers` quantizes the temporal layers like others; `cache16` stores the output
            of every time projection in float16, so that the time MLP and the projections are
            never computed, whatever the policy says of them.
        jitter: half width of the uniform draw by which the weight scale of each output channel is
            multiplied, see `ScaleJitter`. 0 rounds to the ranges as they were found, whatever
            the calibration seed; with more, seeds are replicates of rounding.
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        weights: WeightMethod = "minmax",
        activations: RangeMethod = "minmax",
        symmetric_weights: bool = True,
        calibration_steps: int = 8,
        split: bool = False,
        temporal: TemporalMode = "layers",
        jitter: float = 0.0,
    ) -> None:
        self.scheme = scheme
        self.weights: WeightMethod = weights
        self.activations: RangeMethod = activations
        self.symmetric_weights = symmetric_weights
        self.calibration_steps = calibration_steps
        self.split = split
        self.temporal: TemporalMode = temporal
        self.jitter = jitter

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """Every image at `calibration_steps` steps; nothing when activations stay float."""
        if self.scheme.abits == FULL_PRECISION:
            return CalibrationNeeds()
        last = len(loaded.sampler.timesteps) - 1
        count = min(self.calibration_steps, last + 1)
        steps = [round(index * last / max(1, count - 1)) for index in range(count)]
        return CalibrationNeeds(
            samples=tuple((step, image) for step in steps for image in range(images))
        )

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
            generator: CPU; the methods `mse`, `percentile` and `ema` draw from it, and `jitter`
                after them.
            checkpoint: holds the finished layers, which the state then reads from there.

        Raises:
            QuantizationError: impossible bits, an unknown policy, weights that are not finite, an
                impossible jitter, or a cache for a model without time projections.
            CalibrationError: no samples, a layer that never ran, or inputs that are not finite.
        """
        plan = resolve(find_policy(self.scheme.policy), loaded.topology, self.scheme)
        cache = float16_caches(loaded) if self.temporal == "cache16" else {}
        for name in unused_layers(loaded.topology, cache):
            del plan[name]
        ranges = self._observe(loaded, data, plan, generator=generator, progress=progress)
        jitter = ScaleJitter(self.jitter, generator=generator)
        # A network may be larger than what memory holds beside it, so its codes go to disk.
        spill = LayerSpill(None if checkpoint is None else checkpoint / "layers")
        for number, layer in enumerate(loaded.topology.layers, start=1):
            bits = plan.get(layer.name)
            if isinstance(bits, LayerBits):
                spill.add(self._layer(loaded, layer, bits, ranges, jitter))
            progress(0.7 + 0.3 * number / len(loaded.topology.layers), "rounding weights")
        exempt, half = exemptions(plan)
        return QuantizedState(
            model=loaded.model.digest,
            method="rtn",
            scheme=self.scheme,
            timesteps=tuple(loaded.sampler.timesteps),
            layers=spill.layers(),
            exempt=exempt,
            cache=cache,
            half=half,
        )

    def _observe(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        plan: Mapping[str, LayerBits | Exempt],
        *,
        generator: torch.Generator,
        progress: Progress,
    ) -> InputRanges:
        """Ranges of the parts of every input that is to be quantized."""
        batch = _batch(data)
        parts = {
            layer.name: (1 if layer.kind == "conv2d" else -1, self._parts(loaded, layer))
            for layer in loaded.topology.layers
            if isinstance(bits := plan.get(layer.name), LayerBits) and bits.abits != FULL_PRECISION
        }
        ranges = InputRanges(
            self.activations, batches=-(-len(data.x) // batch), generator=generator
        )

        def observe(name: str, x: torch.Tensor) -> None:
            dim, bounds = parts[name]
            for start, stop in bounds:
                piece = x.narrow(dim, start, stop - start)
                ranges.update(part_name(name, (start, stop), len(bounds)), piece)

        if parts:
            observe_inputs(
                loaded,
                data,
                batch=batch,
                observe=observe,
                layers=set(parts),
                order=observation_order(self.activations, data, generator=generator),
                progress=lambda done, text: progress(0.7 * done, text),
            )
        return ranges

    def _parts(self, loaded: LoadedModel, layer: Layer) -> tuple[tuple[int, int], ...]:
        return input_parts(layer, find_layer(loaded.network, layer.name), split=self.split)

    def _layer(
        self,
        loaded: LoadedModel,
        layer: Layer,
        bits: LayerBits,
        ranges: InputRanges,
        jitter: ScaleJitter,
    ) -> QuantizedLayer:
        module = find_layer(loaded.network, layer.name)
        bounds = self._parts(loaded, layer)
        parts = []
        for start, stop in bounds:
            weight = module.weight if len(bounds) == 1 else module.weight[:, start:stop]
            name = part_name(layer.name, (start, stop), len(bounds))
            try:
                codes, scale, zero_point = round_weight(
                    weight,
                    bits.wbits,
                    method=self.weights,
                    symmetric=self.symmetric_weights,
                    factors=jitter.factors(name, len(weight)),
                )
            except QuantizationError as error:
                raise QuantizationError(f"weight of layer '{layer.name}': {error}") from error
            table = None
            if bits.abits != FULL_PRECISION:
                table = activation_qparams(*ranges.range(name, bits.abits), bits=bits.abits)
            parts.append(
                LayerPart(
                    start=start,
                    stop=stop,
                    weight=codes.cpu(),
                    scale=scale.cpu(),
                    zero_point=zero_point.cpu(),
                    activation=table,
                )
            )
        return QuantizedLayer(
            name=layer.name,
            kind=layer.kind,
            wbits=bits.wbits,
            parts=tuple(parts),
            bias=None if module.bias is None else module.bias.detach().float().cpu().clone(),
        )


def _batch(data: CalibrationData) -> int:
    """Calibration samples per network call."""
    return max(1, min(BATCH, BATCH_VALUES // max(1, data.x[:1].numel())))


def activation_qparams(low: torch.Tensor, high: torch.Tensor, *, bits: int) -> ActivationQParams:
    """The codes that cover ranges, float `[T]` or `[1]` each, on the CPU."""
    scale, zero_point = affine_from_range(low, high, bits=bits)
    return ActivationQParams(bits=bits, scale=scale.cpu(), zero_point=zero_point.cpu())


def round_weight(
    weight: torch.Tensor,
    bits: int,
    *,
    method: WeightMethod = "minmax",
    symmetric: bool = True,
    factors: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales and zero points of a weight, one range per output channel.

    Args:
        weight: float `(C_out, ...)`.
        factors: float32 `[C_out]`, above 0: what the scale of each range is multiplied by before
            rounding (`ScaleJitter`), its zero point kept; None for none.

    Returns:
        uint8 codes in the weight's shape, float32 `[C_out]`, int32 `[C_out]`.

    Raises:
        QuantizationError: the weight is not finite.
    """
    weight = weight.detach()
    pieces = max(1, weight.numel() // ROUNDED_VALUES)
    if factors is None:
        factors = torch.ones(len(weight), dtype=torch.float32, device=weight.device)
    rounded = [
        _round_channels(some.float(), bits, method, symmetric, its)
        for some, its in zip(weight.tensor_split(pieces), factors.tensor_split(pieces), strict=True)
        if len(some)
    ]
    codes, scale, zero_point = (torch.cat(parts) for parts in zip(*rounded, strict=True))
    return codes, scale, zero_point


def _round_channels(
    weight: torch.Tensor,
    bits: int,
    method: WeightMethod,
    symmetric: bool,
    factors: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = weight.flatten(1)
    if method == "mse":
        low, high = mse_range(rows, bits, symmetric=symmetric)
    else:
        low, high = minmax(rows)
    scale, zero_point = affine_from_range(low, high, bits, symmetric)
    scale = scale * factors.to(scale.device)
    codes = quantize(weight, per_channel(scale, weight), per_channel(zero_point, weight), bits)
    return codes, scale, zero_point
