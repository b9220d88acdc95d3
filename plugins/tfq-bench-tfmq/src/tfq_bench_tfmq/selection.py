"""Disturbance-aware selection: where the block's features are used and where the cache's.

Both disturb the temporal feature, and by how much is known beforehand, for every step t and
block i. The smaller disturbance is chosen, entry by entry or summed over an axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from tfq_bench.quant import temporal_errors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ErrorMeasure", "Scope", "disturbance", "select_cache"]

ErrorMeasure = Literal["relative", "cosine"]
Scope = Literal["per-step-block", "per-block", "per-step", "global"]

_AXES: Mapping[Scope, tuple[int, ...]] = {
    "per-step-block": (),
    "per-block": (0,),
    "per-step": (1,),
    "global": (0, 1),
}


def disturbance(
    reference: Mapping[str, Tensor], features: Mapping[str, Tensor], measure: ErrorMeasure
) -> Tensor:
    """Error of each feature, float64 `[T, n]`, n projections in the order of `reference`.

    Args:
        reference, features: `[T, C_i]` by projection, full precision and quantized.
        measure: `relative`, ||emb^ - emb||^2 / ||emb||^2; or `cosine`, 1 - cos(emb^, emb).
    """
    errors = temporal_errors(
        {name: rows.cpu() for name, rows in reference.items()},
        {name: rows.cpu() for name, rows in features.items()},
    )
    return errors.relative.square() if measure == "relative" else 1.0 - errors.cosine


def select_cache(
    block: Tensor, cache: Tensor, scope: Scope, *, ties: Sequence[int] | None = None
) -> Tensor:
    """Where the cache is used, bool `[T, n]`.

    Entry by entry the chosen error is the smaller one, so no sum of errors is larger than with
    either alone; with a wider scope this holds for the sum over the scope. The cache is chosen
    among equals: it costs less.

    Args:
        block, cache: errors `[T, n]` of the temporal block and of the cache.
        ties: number of a group, by projection: those of one group are chosen together, by the
            sum of their errors. Each is a group of its own by default.
    """
    axes = _AXES[scope]
    if ties is not None and 1 not in axes:
        together = torch.tensor(ties)
        block, cache = (
            torch.zeros_like(errors).index_add(1, together, errors)[:, together]
            for errors in (block, cache)
        )
    if not axes:
        return cache <= block
    chosen = cache.sum(dim=axes, keepdim=True) <= block.sum(dim=axes, keepdim=True)
    return chosen.expand(block.shape).clone()
