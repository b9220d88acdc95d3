"""How quantization disturbs the temporal features, per sampler step and block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfq_bench.border import MetricDefinition, MetricValue
from tfq_bench.quant.temporal import temporal_errors, temporal_features

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["Temporal"]

_NAMES = {
    "temporal-error": "Mean relative L2 error of the temporal features over steps and blocks.",
    "temporal-cosine": "Mean of 1 - cosine between temporal features and their FP twins.",
    "temporal-mismatch": "Share of temporal features that are closer to another step's FP feature.",
}


class Temporal:
    """Three means; none for full precision, or for a model without time projections."""

    def definitions(self, inputs: EvaluationInputs) -> tuple[MetricDefinition, ...]:
        """Error, cosine, mismatch."""
        projections = inputs.loaded.topology.time_projections
        if inputs.reference_cell is None or not projections:
            return ()
        parameters = {
            "formula": 1,
            "projections": list(projections),
            "sampler": dict(inputs.sampling)["sampler"],
            "condition": "of image 0",
        }
        return tuple(
            MetricDefinition(
                name=name, unit="", direction="lower", summary=summary, parameters=parameters
            )
            for name, summary in _NAMES.items()
        )

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Values without intervals: the features do not depend on the images.

        `temporal-error` carries the curves `timestep`, `relative_error`, `one_minus_cosine` (means
        over blocks, in execution order) and `block:<name>` (relative error of one block).
        """
        definitions = self.definitions(inputs)
        if not definitions:
            return ()
        loaded = inputs.loaded
        errors = temporal_errors(
            temporal_features(loaded, loaded.network), temporal_features(loaded, inputs.lowered())
        )
        distance = 1 - errors.cosine
        values = {
            "temporal-error": float(errors.relative.mean()),
            "temporal-cosine": float(distance.mean()),
            "temporal-mismatch": errors.mismatch,
        }
        series = {
            "timestep": tuple(float(t) for t in loaded.sampler.timesteps),
            "relative_error": tuple(errors.relative.mean(dim=1).tolist()),
            "one_minus_cosine": tuple(distance.mean(dim=1).tolist()),
        }
        for column, name in enumerate(errors.names):
            block = loaded.topology.layer(name).block
            series[f"block:{block}"] = tuple(errors.relative[:, column].tolist())
        return tuple(
            MetricValue(
                definition=definition,
                value=values[definition.name],
                n=len(loaded.sampler.timesteps),
                reference=inputs.reference_cell,
                series=series if definition.name == "temporal-error" else {},
            )
            for definition in definitions
        )
