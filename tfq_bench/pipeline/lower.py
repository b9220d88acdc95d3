"""What a backend makes of a state: which kernels run, what falls back, and how far it is off.

The lowered network itself is made anew in every process; the artefact holds the facts about it.
Here it is held against the state before anything is drawn with it: every layer by itself, see
`watched_layers`, and the whole network against the simulation of the same integers, at every step
of the sampler and for batches as they will be drawn, see `agreement`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.errors import LoweringError
from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.pipeline.agreement import DRIFT, Agreement, largest_difference
from tfq_bench.pipeline.external import external_facts
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.lower.parity import network_parity
from tfq_bench.quant.lower.simulate import SIMULATED_KERNEL
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.seeds import noise
from tfq_bench.types.networks import Lowered, StepCursor, timestep_tensor

if TYPE_CHECKING:
    from tfq_bench.quant.state.quantized_state import QuantizedState
    from tfq_bench.types import Execution
    from tfq_bench.types.networks import LoadedModel

__all__ = ["lowering_facts"]


@torch.no_grad()
def lowering_facts(
    loaded: LoadedModel,
    state: QuantizedState | None,
    lowered: Lowered,
    simulated: Lowered | None,
    *,
    execution: Execution,
    batches: Sequence[int] = (),
) -> Mapping[str, Any]:
    """The content of the lower stage's `result.json`.

    One call of the network proves which kernels run: `executed` counts what the layers really
    called, not what they were meant to. `layers` says how many layers were checked and which was
    worst, see `LayerCheck`; `calls` says for which batches the network was, and the worst row;
    `details` is what the backend tells of itself. Of a contestant's network there is `external`
    instead of `parity` and `calls`, see `external_facts`.

    Args:
        state: None for full precision and for contestants.
        simulated: the same state simulated, None when `lowered` is not made of kernels.
        execution: what the backend's provider says its networks are.
        batches: how many images the run will put into one call, each number once.

    Raises:
        LoweringError: the network is not what it is said to be: another execution, a layer that
            is not listed as the state has it, a kernel that was promised and did not run, or
            outputs that are not those of the state's integers.
    """
    if lowered.execution != execution:
        raise LoweringError(
            f"the backend is announced as '{execution}' and made a network that says it is "
            f"'{lowered.execution}'.",
            expected=execution,
            found=lowered.execution,
        )
    if state is not None:
        _check_list(loaded, state, lowered)
    facts: dict[str, Any] = {
        "execution": lowered.execution,
        "kernels": [asdict(use) for use in lowered.kernels],
        "executed": _executed(loaded, lowered),
        "layers": None,
        "parity": None,
        "calls": None,
    }
    if state is not None:
        full = Lowered(
            network=loaded.network, step=StepCursor(loaded.device), execution="full-precision"
        )
        with watched_layers(loaded, state, lowered) as watch:
            parity = network_parity(loaded, simulated or full, lowered)
        if watch.worst is not None:
            facts["layers"] = {"checked": len(watch.checks), "worst": asdict(watch.worst)}
        if simulated is not None:
            distance = network_parity(loaded, simulated, full).relative
            limit = largest_difference(loaded, distance)
            facts["parity"] = {**asdict(parity), "limit": limit}
            if parity.relative > limit:
                raise LoweringError(
                    f"the network's predictions are {parity.relative:.3g} of their size away from "
                    f"the simulation of the same integers, more than {limit:.3g}, {DRIFT:g} times "
                    "its own distance from full precision.",
                    expected=limit,
                    found=parity.relative,
                )
            calls = Agreement(loaded, state, lowered, simulated)
            calls.every_step(together=max(batches, default=2))
            for size in batches:
                calls.batch(size)
            facts["calls"] = {"batches": list(batches), "worst": calls.worst}
    if execution == "external":
        facts["external"] = external_facts(loaded, lowered, batches=batches)
    facts["details"] = _details(lowered)
    return facts


def _details(lowered: Lowered) -> Any:
    """What the backend tells of itself, as JSON gives it back.

    Raises:
        LoweringError: it is not plain JSON.
    """
    try:
        return parse_json(json.dumps(dict(lowered.details)))
    except (TypeError, ValueError, RecursionError) as error:
        raise LoweringError(
            "the backend's `Lowered.details` must be a mapping of plain JSON values (numbers that "
            f"are finite, text, lists, mappings), found {printable(error, 200)}."
        ) from error


def _check_list(loaded: LoadedModel, state: QuantizedState, lowered: Lowered) -> None:
    """Nothing, when `lowered.kernels` has one entry per layer of `state`, with its bits."""
    listed = [use.layer for use in lowered.kernels]
    expected = [*state.layers, *state.attention]
    if listed != expected:
        odd = sorted(set(listed) ^ set(expected)) or listed
        raise LoweringError(
            f"the backend lists {len(listed)} layers, expected the state's {len(expected)} in "
            f"their order, each once; look at {', '.join(odd[:3])}."
        )
    for use in lowered.kernels:
        layer = state.layers.get(use.layer)
        if layer is None:
            continue
        macs = loaded.topology.layer(use.layer).macs
        if use.macs != macs:
            raise LoweringError(
                f"layer '{use.layer}': expected {macs} multiply-accumulates, the backend says "
                f"{use.macs}.",
                layer=use.layer,
                expected=macs,
                found=use.macs,
            )
        if use.fallback is None and (use.wbits, use.abits) != (layer.wbits, layer.abits):
            raise LoweringError(
                f"layer '{use.layer}': the state has {layer.wbits} bits for weights and "
                f"{layer.abits} for activations, the backend says {use.wbits} and {use.abits}.",
                layer=use.layer,
            )
        if (
            lowered.execution == "lowered"
            and use.fallback is None
            and use.kernel == SIMULATED_KERNEL
        ):
            raise LoweringError(
                f"layer '{use.layer}' is simulated ('{SIMULATED_KERNEL}'), and the backend gives "
                "no reason for that fallback.",
                layer=use.layer,
            )


def _executed(loaded: LoadedModel, lowered: Lowered) -> dict[str, int]:
    """How often each kernel ran in one guided call of two images."""
    model = loaded.model
    lowered.step.set(0)
    x = noise(0, "lower", range(2), model.latent_shape, device=loaded.device)
    t = timestep_tensor(loaded.sampler.timesteps[0], 2, loaded.device)
    condition = model.conditions(range(2), device=loaded.device)
    lowered.executed.clear()
    guided_prediction(model, lowered.network, x, t, condition)
    executed = dict(sorted(lowered.executed.items()))
    if lowered.execution in ("lowered", "external"):
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
    return executed
