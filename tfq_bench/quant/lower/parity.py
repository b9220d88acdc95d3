"""How far a lowered network is from the simulation of the same integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import LoweringError
from tfq_bench.seeds import noise

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["Parity", "network_parity"]

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
    against the distance to full precision, and the kernels against `watched_layers`.

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
    return _compare(torch.stack(outputs[0]), torch.stack(outputs[1]))


def _compare(expected: Tensor, found: Tensor) -> Parity:
    if expected.shape != found.shape:
        raise LoweringError(
            f"the network's prediction: the simulation gives shape {tuple(expected.shape)}, the "
            f"kernels {tuple(found.shape)}."
        )
    if not bool(torch.isfinite(found).all()):
        raise LoweringError("the network's prediction holds values that are not finite.")
    difference = found.double() - expected.double()
    rms = float(difference.square().mean().sqrt())
    size = float(expected.double().square().mean().sqrt())
    return Parity(
        max_abs=float(difference.abs().max()), rms=rms, relative=rms / size if size else rms
    )
