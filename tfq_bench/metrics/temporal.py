"""How quantization disturbs the temporal features, and how many of them are looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tfq_bench.quant.calibrate.temporal import temporal_errors, temporal_features
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.protocols import EvaluationInputs
    from tfq_bench.types import Topology

__all__ = ["Temporal"]

_NAMES = {
    "temporal-error": "Mean relative L2 error of the temporal features over steps and blocks.",
    "temporal-cosine": "Mean of 1 - cosine between temporal features and their FP twins.",
    "temporal-mismatch": "Share of temporal features that are closer to another step's FP feature.",
    "temporal-cache-share": "Share of temporal features that are looked up in a cache.",
}


class Temporal:
    """Four means; none for full precision, or for a model without time projections.

    None for contestants either: their network need not have the model's modules. What share of the
    features comes from a cache, such as a method may have selected, is read from the state.
    """

    names = tuple(_NAMES)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Values without intervals: the features do not depend on the images.

        Each carries curves over the sampler's steps, in execution order: `timestep`, the mean over
        blocks (`relative_error`, `one_minus_cosine`, `mismatch`), and `block:<name>` of every
        block; the parameter `blocks` has their order. The curve of a block is its error or
        distance; of `temporal-mismatch` it is how many steps later (negative: earlier) the nearest
        full-precision feature stands, 0 where it is the step's own; that of
        `temporal-cache-share`, whose curve over steps is `cache_share`, is 1 where the feature is
        looked up and 0 where it is computed.
        """
        loaded = inputs.loaded
        projections = loaded.topology.time_projections
        external = inputs.facts("lower").get("execution") == "external"
        if inputs.reference_cell is None or not projections or external:
            return ()
        blocks = _blocks(loaded.topology, projections)
        parameters = {
            "formula": 1,
            "projections": list(projections),
            "blocks": blocks,
            "sampler": dict(inputs.sampling)["sampler"],
            "condition": "of image 0",
        }
        errors = temporal_errors(
            temporal_features(loaded, loaded.network), temporal_features(loaded, inputs.lowered())
        )
        distance = 1 - errors.cosine
        shift = errors.nearest - torch.arange(len(errors.nearest))[:, None]
        found = {
            "temporal-error": (errors.relative, errors.relative, "relative_error"),
            "temporal-cosine": (distance, distance, "one_minus_cosine"),
            "temporal-mismatch": ((shift != 0).double(), shift.double(), "mismatch"),
        }
        timesteps = tuple(float(t) for t in loaded.sampler.timesteps)
        values = []
        for name, (share, matrix, curve) in found.items():
            values.append(
                MetricValue(
                    definition=MetricDefinition(
                        name=name,
                        unit="",
                        direction="lower",
                        summary=_NAMES[name],
                        parameters=parameters,
                    ),
                    value=float(share.mean()),
                    n=len(timesteps),
                    reference=inputs.reference_cell,
                    series={
                        "timestep": timesteps,
                        curve: tuple(share.mean(dim=1).tolist()),
                        **_columns(blocks, matrix),
                    },
                )
            )
        return (*values, *_cache_share(inputs))


def _cache_share(inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
    """Where the state looks features up; none where nothing is a function of the timestep alone."""
    topology, state = inputs.loaded.topology, inputs.state
    if state is None or not topology.time_features:
        return ()
    blocks = _blocks(topology, topology.time_features)
    timesteps = tuple(float(t) for t in state.timesteps)
    nowhere = torch.zeros(len(timesteps), dtype=torch.bool)
    looked_up = torch.stack(
        [
            state.cache[name].selected if name in state.cache else nowhere
            for name in topology.time_features
        ],
        dim=1,
    ).double()
    return (
        MetricValue(
            definition=MetricDefinition(
                name="temporal-cache-share",
                unit="",
                # A choice to be seen: neither block nor cache is the better one by itself.
                direction="none",
                summary=_NAMES["temporal-cache-share"],
                parameters={
                    "formula": 1,
                    "features": list(topology.time_features),
                    "blocks": blocks,
                    "sampler": dict(inputs.sampling)["sampler"],
                },
            ),
            value=float(looked_up.mean()),
            n=1,  # counted in the state, without an error of sampling
            series={
                "timestep": timesteps,
                "cache_share": tuple(looked_up.mean(dim=1).tolist()),
                **_columns(blocks, looked_up),
            },
        ),
    )


def _blocks(topology: Topology, names: Sequence[str]) -> list[str]:
    """The block of every layer in `names`; one with several numbers them from the second."""
    blocks = [topology.layer(name).block for name in names]
    return [
        f"{block} #{count}" if (count := blocks[: place + 1].count(block)) > 1 else block
        for place, block in enumerate(blocks)
    ]


def _columns(blocks: Sequence[str], matrix: Tensor) -> dict[str, tuple[float, ...]]:
    """One curve per column, to six digits: some models have 20,000 steps and blocks."""
    return {
        f"block:{block}": tuple(float(f"{value:.6g}") for value in column)
        for block, column in zip(blocks, matrix.T.tolist(), strict=True)
    }
