"""What a backend makes of a state: which kernels run, what falls back, and how far it is off.

The lowered network itself is made anew in every process; the artefact holds the facts about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.errors import LoweringError
from tfq_bench.protocols import timestep_tensor
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.parity import network_parity
from tfq_bench.seeds import noise

if TYPE_CHECKING:
    from tfq_bench.protocols import LoadedModel, Lowered

__all__ = ["lowering_facts"]


@torch.no_grad()
def lowering_facts(
    loaded: LoadedModel, lowered: Lowered, simulated: Lowered | None
) -> Mapping[str, Any]:
    """The content of the lower stage's `result.json`.

    One call of the network proves which kernels run: `executed` counts what the layers really
    called, not what they were meant to.

    Args:
        simulated: the same state simulated, None when `lowered` is not made of kernels.

    Raises:
        LoweringError: a layer that was said to have a kernel did not run it.
    """
    model = loaded.model
    lowered.step.set(0)
    x = noise(0, "lower", range(2), model.latent_shape, device=loaded.device)
    t = timestep_tensor(loaded.sampler.timesteps[0], 2, loaded.device)
    condition = model.conditions(range(2), device=loaded.device)
    lowered.executed.clear()
    guided_prediction(model, lowered.network, x, t, condition)
    executed = dict(sorted(lowered.executed.items()))
    if lowered.execution == "lowered":
        expected: dict[str, int] = {}
        for use in lowered.kernels:
            if use.fallback is None:
                expected[use.kernel] = expected.get(use.kernel, 0) + 1
        short = [name for name, count in expected.items() if executed.get(name, 0) < count]
        if short:
            raise LoweringError(
                f"kernels that were promised did not run: {', '.join(sorted(short))}; "
                f"executed: {executed or 'none'}."
            )
    facts: dict[str, Any] = {
        "execution": lowered.execution,
        "kernels": [asdict(use) for use in lowered.kernels],
        "executed": executed,
        "parity": None,
    }
    if simulated is not None:
        facts["parity"] = asdict(network_parity(loaded, simulated, lowered))
    return facts
