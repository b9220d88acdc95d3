"""How far a lowered network is from the simulation of the same integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tfq_bench.errors import LoweringError
from tfq_bench.quant.affine import per_channel, quantize
from tfq_bench.seeds import noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.networks import LoadedModel, Lowered
    from tfq_bench.quant.state import QuantizedLayer

__all__ = ["Parity", "integer_sums", "layer_parities", "layer_parity", "network_parity"]

IMAGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Differences between two outputs.

    Args:
        max_abs: largest absolute difference.
        rms: root of the mean squared difference.
        relative: `rms` over the root mean square of the simulated output.
    """

    max_abs: float
    rms: float
    relative: float


def layer_parity(layer: QuantizedLayer, simulated: Tensor, lowered: Tensor) -> Parity:
    """How far a layer's lowered output is from its simulated one, both for the same input.

    Raises:
        LoweringError: the shapes differ, or the lowered output is not finite.
    """
    return _compare(simulated, lowered, f"layer '{layer.name}'")


@torch.no_grad()
def network_parity(
    loaded: LoadedModel,
    simulated: Lowered,
    lowered: Lowered,
    steps: Sequence[int] | None = None,
) -> Parity:
    """How far the lowered network's predictions are from the simulated ones.

    Both see the same noise at the same sampler steps. Even when every layer's integers agree, this
    is not zero: float sums in another order differ in the last bit, which moves a few values
    across a rounding boundary of the next layer, and each such flip moves more of them later. In
    a deep network the two drift apart by up to the quantization error itself, so hold this
    against the distance to full precision, and the kernels against `layer_parities`.

    Args:
        steps: step indices; by default the first, the middle and the last.

    Raises:
        LoweringError: a prediction of the lowered network is not finite.
    """
    timesteps = loaded.sampler.timesteps
    last = len(timesteps) - 1
    chosen = sorted({0, last // 2, last}) if steps is None else steps
    model = loaded.model
    x = noise(0, "parity", range(IMAGES), model.latent_shape, device=loaded.device)
    condition = model.conditions(range(IMAGES), device=loaded.device)
    outputs: tuple[list[Tensor], list[Tensor]] = ([], [])
    for step in chosen:
        t = torch.full((IMAGES,), timesteps[step], device=loaded.device)
        for network, found in zip((simulated, lowered), outputs, strict=True):
            network.step.set(step)
            found.append(model.predict(network.network, x, t, condition))
    return _compare(torch.stack(outputs[0]), torch.stack(outputs[1]), "the network's prediction")


@torch.no_grad()
def layer_parities(
    loaded: LoadedModel, simulated: Lowered, lowered: Lowered, *, step: int = 0
) -> dict[str, Parity]:
    """Each quantized layer's parity when both get the simulated layer's own input.

    Nothing accumulates from layer to layer, so this shows what the kernels do: a few units in the
    last place of float32. A layer that runs more than once shows its largest difference.

    Raises:
        LoweringError: a lowered output has another shape or is not finite.
    """
    model = loaded.model
    found: dict[str, Parity] = {}
    layers = {
        use.layer: lowered.network.get_submodule(use.layer)
        for use in simulated.kernels
        # Attention holds layers of its own, whose differences would add up in it.
        if use.layer not in loaded.topology.attention
    }

    def compare(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            parity = _compare(output, layers[name](*inputs), f"layer '{name}'")
            if name not in found or parity.max_abs > found[name].max_abs:
                found[name] = parity

        return hook

    simulated.step.set(step)
    lowered.step.set(step)
    handles = [
        simulated.network.get_submodule(name).register_forward_hook(compare(name))
        for name in layers
    ]
    try:
        x = noise(0, "parity", range(IMAGES), model.latent_shape, device=loaded.device)
        t = torch.full((IMAGES,), loaded.sampler.timesteps[step], device=loaded.device)
        condition = model.conditions(range(IMAGES), device=loaded.device)
        model.predict(simulated.network, x, t, condition)
    finally:
        for handle in handles:
            handle.remove()
    return found


def integer_sums(
    layer: QuantizedLayer,
    x: Tensor,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    step: int = 0,
) -> tuple[Tensor, ...]:
    """The exact accumulators of a layer, one int64 tensor in the output's shape per part.

    A part's accumulator is the sum over its inputs of (q - z) * (q_w - z_w); its share of the
    output is that times `s * s_w`. Padding contributes nothing, because it holds q = z.
    The sums are formed in float64, which is exact below 2^53; no layer comes near it.

    Args:
        x: the layer's float input. step: index into the activation tables.

    Raises:
        LoweringError: the layer has float activations, so there are no integers.
    """
    sums = []
    for part in layer.parts:
        table = part.activation
        if table is None:
            raise LoweringError(f"layer '{layer.name}' has float activations: no integer sums.")
        k = step if len(table.scale) > 1 else 0
        scale, zero_point = table.scale[k].to(x.device), table.zero_point[k].to(x.device)
        dim = 1 if layer.kind == "conv2d" else -1
        piece = x.narrow(dim, part.start, part.stop - part.start)
        code = quantize(piece, scale, zero_point, table.bits).double() - zero_point
        weight = part.weight.double() - per_channel(part.zero_point, part.weight)
        weight = weight.to(x.device)
        if layer.kind == "conv2d":
            total = F.conv2d(code, weight, None, stride, padding, dilation, groups)
        else:
            total = F.linear(code, weight)
        sums.append(total.round().to(torch.int64))
    return tuple(sums)


def _compare(expected: Tensor, found: Tensor, where: str) -> Parity:
    if expected.shape != found.shape:
        raise LoweringError(
            f"{where}: the simulation gives shape {tuple(expected.shape)}, the kernels "
            f"{tuple(found.shape)}."
        )
    if not bool(torch.isfinite(found).all()):
        raise LoweringError(f"{where} holds values that are not finite.")
    difference = found.double() - expected.double()
    rms = float(difference.square().mean().sqrt())
    size = float(expected.double().square().mean().sqrt())
    return Parity(
        max_abs=float(difference.abs().max()), rms=rms, relative=rms / size if size else rms
    )
