"""Bias correction of the output layer (the idea: arXiv:1906.04721, section 4.2).

    b <- b - mean(y^ - y)

y and y^ are the layer's outputs in the full-precision and in the quantized network, the mean is per
channel over samples and positions. Rounding moves a prediction by nearly the same amount at every
sampler step, and steps add up: what is invisible in one prediction is a colour cast in the image. A
bias is float in every state and kernel, so taking the mean away costs nothing at sampling.

Where the policy keeps the output layer float, its own rounding moves next to nothing, but what the
layers before it have moved still arrives, and its bias takes that away all the same.

Under classifier-free guidance the sampler steps on `(1 - s) u + s c`, and the mean of that is what
must not move. A bias shifts u and c alike, and so their combination by as much; what has to be
taken away is therefore `(1 - s) mean(u^ - u) + s mean(c^ - c)`, not the mean over both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.quant.guidance import branch_weights
from tfq_bench.quant.learn.activation_qparams import take

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
    from tfq_bench.types import CalibrationData

__all__ = ["correct_output_bias"]

BATCH = 64
"""Samples per network call; the result depends on it in last bits only."""


@torch.no_grad()
def correct_output_bias(fake_quant: FakeQuantNetwork, data: CalibrationData) -> dict[str, Tensor]:
    """Corrects the bias of each layer of role `output`, quantized or exempt, in place.

    Call it last: with weights that are learned and activation tables that are final.

    Args:
        data: what the mean is taken over; nothing happens without samples. Under guidance, both
            rows of each (step, image).

    Returns:
        What was taken from each bias, float32 `[C_out]` by layer.

    Raises:
        CalibrationError: guidance, and a (step, image) of which a branch is missing.
    """
    topology = fake_quant.loaded.topology
    outputs = {layer.name: layer.kind for layer in topology.layers if layer.role == "output"}
    if not outputs or len(data.x) == 0:
        return {}
    counted = branch_weights(fake_quant.loaded.model, data)
    now: list[Tensor | None] = [None]
    fake_quant.set(activations="quantized")
    sums = {name: torch.zeros((), dtype=torch.float64) for name in outputs}
    counts = dict.fromkeys(outputs, 0)

    def add(name: str, sign: int) -> Callable[[nn.Module, Any, Tensor], None]:
        channel_dim = 1 if outputs[name] == "conv2d" else -1

        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            rows = output.movedim(channel_dim, -1).flatten(0, -2).double()
            if now[0] is not None:
                each = now[0].to(rows.device).repeat_interleave(len(rows) // len(now[0]))
                rows = rows * each[:, None]
            sums[name] = sums[name] + sign * rows.sum(dim=0).cpu()
            counts[name] += len(rows) if sign > 0 else 0

        return hook

    loaded = fake_quant.loaded
    handles = [
        network.get_submodule(name).register_forward_hook(add(name, sign))
        for network, sign in ((fake_quant.network, 1), (loaded.network, -1))
        for name in outputs
    ]
    try:
        for rows in torch.split(torch.arange(len(data.x)), BATCH):
            part = take(data, rows)
            now[0] = None if counted is None else counted[rows]
            fake_quant.predict(part.x, part.timestep, part.condition, part.step)
            loaded.model.predict(loaded.network, part.x, part.timestep, part.condition)
    finally:
        for handle in handles:
            handle.remove()
    fake_quant.set(activations="float")
    shifts = {name: (sums[name] / counts[name]).float() for name in outputs}
    for name, shift in shifts.items():
        fake_quant.shift_bias(name, -shift)
    return shifts
