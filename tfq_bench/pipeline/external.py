"""Tools that quantize and execute by themselves: how they are asked, and what is looked at.

A tool decides alone what it quantizes, so there are no integers to hold its network against. What
can be seen from outside is: that it did something to the network, that its predictions are of the
right shape and finite for all batches that will be drawn, and that it ran what it says it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.errors import LoweringError, QuantizationError
from tfq_bench.pipeline.cost import Meter
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.seeds import generator, noise
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from tfq_bench.protocols import Contestant
    from tfq_bench.types import CalibrationData
    from tfq_bench.types.networks import LoadedModel, Lowered
    from tfq_bench.types.tasks import Progress

__all__ = ["PRODUCT", "external_facts", "quantize_externally"]

PRODUCT = "product"
"""Folder, in the artefact of `quantize`, of what a contestant wrote."""


def quantize_externally(
    contestant: Contestant,
    loaded: LoadedModel,
    data: CalibrationData,
    *,
    seed: int,
    progress: Progress,
    folder: Path,
) -> dict[str, Any]:
    """Lets a tool write its product, and tells what that cost.

    Args:
        folder: does not exist yet.

    Returns:
        What `Meter` measures, `calibration_samples`, `bytes` of the files of the product, and
        `tools`: `name==version` of what quantizes and executes.

    Raises:
        QuantizationError: it wrote nothing.
    """
    folder.mkdir()
    with Meter(loaded) as meter:
        contestant.quantize(
            loaded,
            data,
            generator=generator(seed, "quantize"),
            progress=meter.kept(progress),
            folder=folder,
        )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if not size:
        raise QuantizationError(
            "the contestant is expected to write what it made into its folder, found nothing "
            "there; the network is loaded from it in another process."
        )
    return {
        **meter.facts,
        "calibration_samples": int(data.x.shape[0]),
        "bytes": size,
        "tools": list(contestant.packages),
    }


@torch.no_grad()
def external_facts(
    loaded: LoadedModel, lowered: Lowered, *, batches: Sequence[int]
) -> Mapping[str, Any]:
    """What can be seen of a contestant's network from outside.

    Args:
        batches: how many images the run will put into one call, each number once.

    Returns:
        `batches`; `macs`: multiply-accumulates of one call of the whole network for one image; and
        `distance`: root mean square difference of its predictions from full precision over that of
        these, for one batch at the sampler's first step.

    Raises:
        LoweringError: its list of layers is not one of this model's, it predicts what full
            precision predicts to the last bit, something of another shape, or nothing finite.
    """
    _check_list(loaded, lowered)
    last = len(loaded.sampler.timesteps) - 1
    for size in batches:
        _prediction(loaded, lowered, last, size)
    found = _prediction(loaded, lowered, 0, 2)
    expected = _called(loaded, loaded.network, 0, 2)
    if torch.equal(found, expected):
        raise LoweringError(
            "the contestant predicts what full precision predicts, to the last bit: it quantized "
            "nothing of this network."
        )
    difference = (found.double() - expected.double()).square().mean().sqrt()
    distance = float(difference / expected.double().square().mean().sqrt())
    macs = sum(layer.macs for layer in loaded.topology.layers)
    return {"batches": list(batches), "macs": macs, "distance": distance}


def _check_list(loaded: LoadedModel, lowered: Lowered) -> None:
    """Nothing, when every entry is a layer of the model, once, with its multiply-accumulates."""
    macs = {layer.name: layer.macs for layer in loaded.topology.layers}
    listed = [use.layer for use in lowered.kernels]
    if not listed:
        raise LoweringError(
            "the contestant is expected to list the layers that it quantized and how each runs "
            "(`Lowered.kernels`), found none."
        )
    if len(listed) != len(set(listed)):
        raise LoweringError("the contestant lists a layer twice in `Lowered.kernels`.")
    for use in lowered.kernels:
        if macs.get(use.layer) != use.macs:
            raise LoweringError(
                f"layer '{use.layer}': expected "
                + (
                    f"{macs[use.layer]} multiply-accumulates"
                    if use.layer in macs
                    else "a layer of the model's topology"
                )
                + f", the contestant lists it with {use.macs} multiply-accumulates.",
                layer=use.layer,
            )


def _prediction(loaded: LoadedModel, lowered: Lowered, step: int, size: int) -> Tensor:
    lowered.step.set(step)
    found = _called(loaded, lowered.network, step, size)
    shape = (size, *loaded.model.latent_shape)
    if tuple(found.shape) != shape:
        raise LoweringError(
            f"at step {step}, the contestant's prediction for a batch of {size} is expected shape "
            f"{shape}, found {tuple(found.shape)}.",
            expected=shape,
            found=tuple(found.shape),
        )
    if not bool(found.isfinite().all()):
        raise LoweringError(
            f"at step {step}, the contestant's prediction for a batch of {size} has values that "
            "are not finite."
        )
    return found


def _called(loaded: LoadedModel, network: nn.Module, step: int, size: int) -> Tensor:
    model, device = loaded.model, loaded.device
    x = noise(0, "lower", range(size), model.latent_shape, device=device)
    t = timestep_tensor(loaded.sampler.timesteps[step], size, device)
    condition = model.conditions(range(size), device=device)
    return guided_prediction(model, network, x, t, condition)
