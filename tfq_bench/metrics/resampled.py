"""Values of metrics with their intervals, from images drawn again with replacement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfq_bench.stats.intervals import (
    REPLICATES,
    bootstrap_counts,
    mean_value,
    normal_interval,
    resampling_id,
)
from tfq_bench.types import MetricDefinition, MetricValue

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["bootstrap_value", "mean_over_images"]


def bootstrap_value(
    definition: MetricDefinition,
    statistic: Callable[[np.ndarray], np.ndarray],
    inputs: EvaluationInputs,
    *,
    n: int,
    replicates: int = REPLICATES,
) -> MetricValue:
    """The statistic of the sample, with its interval and replicates that pair with other cells'.

    Args:
        statistic: float64 `[R]`, of each resample, from int64 counts `[R, n]`: how often resample r
            holds image i. Resample 0 is the sample itself.
        n: number of images.
    """
    sample = np.ones((1, n), dtype=np.int64)
    counts = np.concatenate([sample, bootstrap_counts(n, replicates)])
    value, *resampled = statistic(counts).tolist()
    return MetricValue(
        definition=definition,
        value=value,
        n=n,
        interval=normal_interval(value, resampled),
        replicates=tuple(resampled),
        pairing=resampling_id(inputs.pairing, n, replicates),
    )


def mean_over_images(
    definition: MetricDefinition,
    per_image: np.ndarray,
    inputs: EvaluationInputs,
    *,
    reference: str | None = None,
) -> MetricValue:
    """The mean of float64 `[N]`, with its interval and replicates that pair with other cells'.

    Args:
        reference: key of the cell that it is measured against, if against one.
    """
    n = len(per_image)
    value, interval, replicates = mean_value(per_image)
    return MetricValue(
        definition=definition,
        value=value,
        n=n,
        interval=interval,
        replicates=replicates,
        pairing=resampling_id(inputs.pairing, n, REPLICATES),
        reference=reference,
    )
