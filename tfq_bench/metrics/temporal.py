"""How quantization disturbs the temporal features, per sampler step and block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tfq_bench.quant.calibrate.temporal import temporal_errors, temporal_features
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.protocols import EvaluationInputs

__all__ = ["Temporal"]

_NAMES = {
    "temporal-error": "Mean relative L2 error of the temporal features over steps and blocks.",
    "temporal-cosine": "Mean of 1 - cosine between temporal features and their FP twins.",
    "temporal-mismatch": "Share of temporal features that are closer to another step's FP feature.",
}


class Temporal:
    """Three means; none for full precision, or for a model without time projections.

    None for contestants either: their network need not have the model's modules.
    """

    names = tuple(_NAMES)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Values without intervals: the features do not depend on the images.

        Each carries curves over the sampler's steps, in execution order: `timestep`, the mean over
        blocks (`relative_error`, `one_minus_cosine`, `mismatch`), and `block:<name>` of every
        block; the parameter `blocks` has their order. The curve of a block is its error or
        distance; of `temporal-mismatch` it is how many steps later (negative: earlier) the nearest
        full-precision feature stands, 0 where it is the step's own.
        """
        loaded = inputs.loaded
        projections = loaded.topology.time_projections
        external = inputs.facts("lower").get("execution") == "external"
        if inputs.reference_cell is None or not projections or external:
            return ()
        blocks = _blocks(inputs)
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
        return tuple(values)


def _blocks(inputs: EvaluationInputs) -> list[str]:
    """The block of every projection; one with several projections numbers them from the second."""
    topology = inputs.loaded.topology
    blocks = [topology.layer(name).block for name in topology.time_projections]
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
