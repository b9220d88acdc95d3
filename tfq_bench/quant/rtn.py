"""Round to nearest: the reference quantizer. Nothing is learned.

Weights: one range per output channel, by default the min-max range with symmetric codes.
Activations: one static range per layer input, from calibration data over the whole trajectory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from tfq_bench.border import FULL_PRECISION, CalibrationNeeds, Scheme
from tfq_bench.errors import QuantizationError
from tfq_bench.quant.affine import affine_from_range, per_channel, quantize
from tfq_bench.quant.layers import find_layer
from tfq_bench.quant.observe import InputRanges, RangeMethod, observe_inputs
from tfq_bench.quant.policy import Exempt, LayerBits, find_policy, resolve
from tfq_bench.quant.ranges import minmax, mse_range
from tfq_bench.quant.state import ActivationTable, LayerPart, QuantizedLayer, QuantizedState

if TYPE_CHECKING:
    from pathlib import Path

    from tfq_bench.border import CalibrationData, Layer
    from tfq_bench.protocols import LoadedModel, Progress

__all__ = ["RoundToNearest", "WeightMethod", "round_weight"]

WeightMethod = Literal["minmax", "mse"]

BATCH = 16
"""Calibration samples per network call; fixed, because the EMA range depends on it."""


class RoundToNearest:
    """The quantizer `rtn`.

    Args:
        weights: how a channel's range is found: `minmax`, or `mse` (see `mse_range`).
        activations: how an input's range is found: `minmax`, `mse`, `percentile` (99.9) or `ema`.
        symmetric_weights: whether weight codes have their zero point in the middle; kernels
            that take signed weights need no correction then.
        calibration_steps: how many sampler steps, evenly spread with both ends, are looked at.
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        weights: WeightMethod = "minmax",
        activations: RangeMethod = "minmax",
        symmetric_weights: bool = True,
        calibration_steps: int = 8,
    ) -> None:
        self.scheme = scheme
        self.weights: WeightMethod = weights
        self.activations: RangeMethod = activations
        self.symmetric_weights = symmetric_weights
        self.calibration_steps = calibration_steps

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
        checkpoint: Path | None = None,  # noqa: ARG002
    ) -> QuantizedState:
        """The state; the same inputs and generator give the same bytes.

        Args:
            generator: CPU; only the methods `mse` and `percentile` draw from it.
            checkpoint: not used, because nothing takes long.

        Raises:
            QuantizationError: impossible bits, an unknown policy, or weights that are not finite.
            CalibrationError: no samples, a layer that never ran, or inputs that are not finite.
        """
        plan = resolve(find_policy(self.scheme.policy), loaded.topology, self.scheme)
        watched = {
            name
            for name, bits in plan.items()
            if isinstance(bits, LayerBits) and bits.abits != FULL_PRECISION
        }
        ranges = InputRanges(
            self.activations, batches=-(-len(data.x) // BATCH), generator=generator
        )
        if watched:
            observe_inputs(
                loaded,
                data,
                batch=BATCH,
                observe=ranges.update,
                layers=watched,
                progress=lambda done, text: progress(0.7 * done, text),
            )
        layers: dict[str, QuantizedLayer] = {}
        exempt: dict[str, str] = {}
        for number, layer in enumerate(loaded.topology.layers, start=1):
            bits = plan[layer.name]
            if isinstance(bits, Exempt):
                exempt[layer.name] = bits.reason
            else:
                layers[layer.name] = self._layer(loaded, layer, bits, ranges)
            progress(0.7 + 0.3 * number / len(loaded.topology.layers), "rounding weights")
        return QuantizedState(
            model=loaded.model.digest,
            method="rtn",
            scheme=self.scheme,
            timesteps=tuple(loaded.sampler.timesteps),
            layers=layers,
            exempt=exempt,
        )

    def _layer(
        self, loaded: LoadedModel, layer: Layer, bits: LayerBits, ranges: InputRanges
    ) -> QuantizedLayer:
        module = find_layer(loaded.network, layer.name)
        try:
            codes, scale, zero_point = round_weight(
                module.weight, bits.wbits, method=self.weights, symmetric=self.symmetric_weights
            )
        except QuantizationError as error:
            raise QuantizationError(f"weight of layer '{layer.name}': {error}") from error
        table = None
        if bits.abits != FULL_PRECISION:
            a_scale, a_zero = affine_from_range(
                *ranges.range(layer.name, bits.abits), bits=bits.abits
            )
            table = ActivationTable(bits=bits.abits, scale=a_scale.cpu(), zero_point=a_zero.cpu())
        channels = module.weight.shape[1] * getattr(module, "groups", 1)
        return QuantizedLayer(
            name=layer.name,
            kind=layer.kind,
            wbits=bits.wbits,
            parts=(
                LayerPart(
                    start=0,
                    stop=channels,
                    weight=codes.cpu(),
                    scale=scale.cpu(),
                    zero_point=zero_point.cpu(),
                    activation=table,
                ),
            ),
            bias=None if module.bias is None else module.bias.detach().float().cpu().clone(),
        )


def round_weight(
    weight: torch.Tensor, bits: int, *, method: WeightMethod = "minmax", symmetric: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales and zero points of a weight, one range per output channel.

    Args:
        weight: float `(C_out, ...)`.

    Returns:
        uint8 codes in the weight's shape, float32 `[C_out]`, int32 `[C_out]`.

    Raises:
        QuantizationError: the weight is not finite.
    """
    weight = weight.detach().float()
    rows = weight.flatten(1)
    if method == "mse":
        low, high = mse_range(rows, bits, symmetric=symmetric)
    else:
        low, high = minmax(rows)
    scale, zero_point = affine_from_range(low, high, bits, symmetric)
    codes = quantize(weight, per_channel(scale, weight), per_channel(zero_point, weight), bits)
    return codes, scale, zero_point
